"""LoRA adapters of an encoder's network through peft (Hu et al. 2021, arXiv:2106.09685).

Adapters stand on linear layers and on convolutions inside the stages. Convolutions in groups
(depthwise ones) are left out: their adapters could not be merged. Running statistics of batch
normalisation do not move, since an adapter file does not hold them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pathencoder import compat
from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.heads.adapt import parts
from pathencoder.spec import EncoderSpec

FILES = ("adapter_config.json", "adapter_model.safetensors")
_PLAIN = ("Linear", "Conv2d", "Conv2dSame")  # torch's and timm's classes


@dataclass(frozen=True)
class Adapter:
    """The files of an adapter in peft's format, in memory.

    Attributes:
        files: Content by name (`FILES`).
        rank: Of the adapters.
        modules: How many modules have one.
    """

    files: dict[str, bytes]
    rank: int
    modules: int


def require_peft() -> Any:
    """The module peft.

    Raises:
        MissingExtra: It is not installed.
    """
    compat.import_timm()  # peft imports torchvision
    try:
        import peft
    except ImportError as error:
        raise MissingExtra.of("lora", "how='lora'") from error
    return peft


def targets(network: Any, spec: EncoderSpec) -> list[str]:
    """The modules that get an adapter.

    Args:
        network: The timm network.
        spec: The encoder's description.

    Returns:
        Names of modules.

    Raises:
        ConfigError: The network has none.
    """
    used = parts.used(network, spec)
    depth = parts.depths(name for name, _ in network.named_parameters())
    staged = any(depth.values())
    found = [
        name
        for name, module in network.named_modules()
        if _is_plain(module)
        and f"{name}.weight" in used
        and (depth[f"{name}.weight"] > 0 or not staged)
    ]
    if not found:
        raise ConfigError(
            f"{spec.name}: no linear layer and no plain convolution that its embedding depends on:"
            " use how='all'"
        )
    return found


def _is_plain(module: nn.Module) -> bool:
    """Whether an adapter can be merged into a module: its output is linear in its weight.

    Subclasses that standardise their weight are not; peft's adapters have no groups or dilation.
    """
    if type(module).__name__ not in _PLAIN:
        return False
    return not isinstance(module, nn.Conv2d) or (module.groups, *module.dilation) == (1, 1, 1)


def add(network: Any, spec: EncoderSpec, *, rank: int, seed: int) -> Any:
    """The network with adapters, whose output is that of the network until they are trained.

    Args:
        network: The timm network; it becomes a part of the result.
        spec: The encoder's description.
        rank: Of the adapters.
        seed: Of their first values.

    Returns:
        A PeftModel, of which the adapters alone have gradients.

    Raises:
        ConfigError: The network has no module for an adapter.
        MissingExtra: peft is not installed.
    """
    peft = require_peft()
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets(network, spec),
        revision=spec.revision,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = peft.get_peft_model(network, settings)
    # given in the settings it would be replaced by the network's own, which it lacks
    model.peft_config["default"].base_model_name_or_path = spec.repo or spec.name
    return model.eval()


def adapter_of(model: Any) -> Adapter:
    """The files of a PeftModel's adapter, as peft writes them."""
    settings = model.peft_config["default"]
    with tempfile.TemporaryDirectory() as folder:
        # "auto" would ask the Hub for the parent's vocabulary
        model.save_pretrained(folder, save_embedding_layers=False)
        files = {name: (Path(folder) / name).read_bytes() for name in FILES}
    modules = sum(name.endswith(".lora_A.default") for name, _ in model.named_modules())
    return Adapter(files, settings.r, modules)


def merge(model: Any) -> Any:
    """The timm network with the adapters added to its weights, under timm's names."""
    with torch.no_grad():
        bases = [m.base_layer for m in model.modules() if _adds_nothing(m)]
    before = [base.weight.detach().clone() for base in bases]
    merged = model.merge_and_unload()
    for base, weight in zip(bases, before, strict=True):  # -0.0 + 0.0 has other bits than -0.0
        base.weight.data.copy_(weight)
    for parameter in merged.parameters():
        parameter.requires_grad = True
    return merged.eval()


def _adds_nothing(module: Any) -> bool:
    """Whether a module has an adapter that was not trained, or whose first weights were kept."""
    return hasattr(module, "lora_A") and not any(
        module.get_delta_weight(name).any() for name in module.active_adapters
    )
