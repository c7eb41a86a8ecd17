"""The maps of a backbone's modules in a forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from pathencoder import network as networks


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


def _as_map(network: nn.Module, output: Tensor) -> Tensor:
    if output.ndim == 3:
        patches = output[:, int(getattr(network, "num_prefix_tokens", 0)) :]
        side = math.isqrt(patches.shape[1])
        laid_out: Tensor = patches.transpose(1, 2).reshape(*patches.shape[::2], side, side)
        return laid_out
    return networks.channels_first(network, output)
