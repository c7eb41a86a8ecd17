"""The maps of a backbone's modules in a forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder.errors import ConfigError


@contextmanager
def feature_maps(network: nn.Module, stages: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside: the outputs [N, C, h, w] of these modules in the last forward pass, by path.

    Patch tokens of a transformer's blocks are laid out as the square map that they are of.
    """
    maps: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            maps[path] = _as_map(network, output)

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(path)) for path in stages]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def map_widths(backbone: nn.Module, stages: Sequence[str], px: int, setting: str) -> list[int]:
    """Channels of the map of each stage.

    Args:
        backbone: The network.
        stages: Paths of its modules.
        px: Side of an image that it takes.
        setting: The setting that names the stages, for messages.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """
    if drops_patches(backbone):
        raise ConfigError(
            f"{setting} takes whole maps, and backbone.args drops some patches (patch_drop_rate):"
            " leave out one of the two"
        )
    if missing := [s for s in stages if s not in dict(backbone.named_modules())]:
        there = [name for name, _ in backbone.named_modules() if name and name.count(".") < 2]
        raise ConfigError(
            f"{setting}: {type(backbone).__name__} has no {', '.join(missing)}; it has"
            f" {', '.join(there)}"
        )
    blank = torch.zeros(1, 3, px, px, device=next(backbone.parameters()).device)
    training = backbone.training
    with feature_maps(backbone, stages) as maps:
        backbone.eval()(blank)
    backbone.train(training)
    if flat := [s for s in stages if maps[s].ndim != 4]:
        raise ConfigError(f"{setting}: the output of {', '.join(flat)} is no map")
    return [maps[stage].shape[1] for stage in stages]


def drops_patches(backbone: nn.Module) -> bool:
    """Whether a ViT leaves out random patches when it is trained."""
    return type(getattr(backbone, "patch_drop", None)).__name__ == "PatchDropout"


def _as_map(network: nn.Module, output: Tensor) -> Tensor:
    if output.ndim == 3:
        patches = output[:, int(getattr(network, "num_prefix_tokens", 0)) :]
        side = math.isqrt(patches.shape[1])
        laid_out: Tensor = patches.transpose(1, 2).reshape(*patches.shape[::2], side, side)
        return laid_out
    return networks.channels_first(network, output)
