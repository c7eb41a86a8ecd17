"""Partial unfreezing: the last stages of a network, or all of it, with a rate for each layer."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from pathencoder.errors import ConfigError
from pathencoder.heads.adapt import parts
from pathencoder.spec import EncoderSpec

Group = dict[str, Any]  # one group of parameters, as optimisers take it


def unfreeze(network: Any, spec: EncoderSpec, *, stages: int | None) -> dict[str, int]:
    """Switch gradients on for the last stages that the embedding depends on, and off elsewhere.

    Args:
        network: The timm network.
        spec: The encoder's description.
        stages: How many of the stages are trained; None: the whole network.

    Returns:
        The depth below the last stage, 0 for itself, of each parameter that is trained.

    Raises:
        ConfigError: The network has no known stages, or fewer.
    """
    used = parts.used(network, spec)
    depth = parts.depths(name for name, _ in network.named_parameters())
    last = max(depth[name] for name in used)
    if stages is not None and stages > last:
        raise ConfigError(
            f"{spec.name}: its network has no known stages: use how='all' or 'lora'"
            if last == 0
            else f"stages={stages}: the embedding of {spec.name} depends on {last} stages"
        )
    first = 0 if stages is None else last - stages + 1
    trained = {name: last - depth[name] for name in used if depth[name] >= first}
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name in trained
    return trained


def last_third(network: Any, spec: EncoderSpec) -> int:
    """A third of the stages that the embedding depends on, rounded up."""
    depth = parts.depths(name for name, _ in network.named_parameters())
    return max(1, math.ceil(max(depth[name] for name in parts.used(network, spec)) / 3))


def groups(
    network: nn.Module, below: dict[str, int], *, rate: float, layer_decay: float, decay: float
) -> list[Group]:
    """Parameters by rate and weight decay: deeper layers learn faster.

    Args:
        network: The network.
        below: What `unfreeze` returned.
        rate: Of the last stage.
        layer_decay: Factor of the rate from a stage to the one before (ELECTRA, arXiv:2003.10555,
            and BEiT, arXiv:2106.08254, fine-tune in this way).
        decay: Weight decay; none for norms and biases.

    Returns:
        Groups for an optimiser, each with its rate as "highest".
    """
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if name in below:
            found.setdefault((below[name], parameter.ndim > 1), []).append(parameter)
    return [
        group_of(values, rate * layer_decay**depth, decay if decays else 0.0)
        for (depth, decays), values in sorted(found.items(), key=lambda item: item[0])
    ]


def group_of(parameters: list[nn.Parameter], rate: float, decay: float) -> Group:
    """One group: its rate follows the schedule from "highest" on."""
    return {"params": parameters, "lr": rate, "highest": rate, "weight_decay": decay}
