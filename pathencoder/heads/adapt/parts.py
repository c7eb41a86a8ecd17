"""The weights that decide an encoder's embedding, and the stage that each belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from pathencoder import outputs
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import evaluating

# containers of stages, as timm names them in all of its families
_STAGE = re.compile(r"(?:(?:blocks|stages|layers)\.(\d+)|layer(\d+))\.")


def used(network: Any, spec: EncoderSpec) -> set[str]:
    """The names of the parameters that the embedding depends on.

    A readout of inner stages leaves out the stages after them: training these would change nothing.

    Args:
        network: The timm network; gradients of its parameters are switched on.
        spec: The encoder's description.

    Returns:
        Names of parameters.
    """
    named = dict(network.named_parameters())
    for parameter in named.values():
        parameter.requires_grad = True
    like = next(iter(named.values()))
    blank = like.new_zeros((1, 3, spec.input_size, spec.input_size))
    with evaluating(network), torch.enable_grad():
        total = outputs.read(network, spec, blank).embedding.sum()
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None}


def depths(names: Iterable[str]) -> dict[str, int]:
    """The depth of each parameter: 0 before the first stage, then 1, 2, ... by stage.

    Args:
        names: Of all parameters, in the order of the network. What follows the last stage (a final
            norm) has its depth.

    Returns:
        Depth by name; all are 0 in a network without known stages.
    """
    found: dict[str, int] = {}
    stages: dict[str, int] = {}
    for name in names:
        match = _STAGE.match(name)
        if match:
            stages.setdefault(match[0], len(stages) + 1)
            found[name] = stages[match[0]]
        else:
            found[name] = len(stages)
    return found
