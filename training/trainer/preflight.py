"""Do crops, tiles and network fit one another? Asked before a run starts, on the meta device and on a few tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pathencoder.errors import ConfigError, ImageError
from training.backbones import make
from training.config import Config
from training.data.corpus import Corpus
from training.methods import MethodSettings

_LOOKED_AT = 16


def crop_sizes(method: MethodSettings) -> dict[str, int]:
    """Pixels of each kind of crop that a method's settings ask for: method.NAME -> px."""
    return {f"method.{name}": px for name, px in method.crop_sizes().items()}


def check(cfg: Config, corpus: Corpus) -> None:
    """Raises ConfigError for crops larger than the tiles are, and for crops that the network cannot take."""
    sizes = crop_sizes(cfg.method)
    _refuse_small_tiles(sizes, corpus)
    if not cfg.method.own_network:
        for name, px in sizes.items():
            refuse_network(cfg, name, px)


def refuse_network(cfg: Config, name: str, px: int) -> None:
    """Raises ConfigError when the backbone cannot take images of px."""
    with torch.device("meta"):
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None})).eval()
        try:
            network(torch.empty(2, 3, px, px))
        except (AssertionError, RuntimeError, ValueError) as error:
            hint = (
                "give a multiple of its patch size, and backbone.args={dynamic_img_size: true} for"
                " a ViT"
            )
            raise ConfigError(
                f"{name}: {cfg.backbone.architecture} cannot take crops of {px} px ({error}):"
                f" {hint}"
            ) from None


def unsafe_in_bf16(cfg: Config) -> str | None:
    """The first convolution whose gradient would be made of stray memory in bf16 on a CPU, and for which crop; None: all is well.

    oneDNN's bf16 gradient of a strided convolution larger than 1 x 1 reads beyond maps of one pixel (seen with torch 2.13; every other
    shape that was tried agrees with float64). Crops that leave the last stage more than one pixel to start from are safe.
    """
    if cfg.method.own_network:
        return None
    found: list[str] = []
    with torch.device("meta"):
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None})).eval()
        for name, px in sorted(crop_sizes(cfg.method).items(), key=lambda item: item[1]):
            handles = [
                m.register_forward_pre_hook(_look_for_one_pixel(found, n))
                for n, m in network.named_modules()
                if _strides(m)
            ]
            network(torch.empty(2, 3, px, px))
            for handle in handles:
                handle.remove()
            if found:
                return f"{found[0]} ({name}, crops of {px} px)"
    return None


def _strides(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1


def _look_for_one_pixel(found: list[str], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if min(inputs[0].shape[-2:]) == 1:
            found.append(name)

    return hook


def _refuse_small_tiles(sizes: dict[str, int], corpus: Corpus) -> None:
    sides = []
    for index in np.linspace(0, len(corpus) - 1, min(_LOOKED_AT, len(corpus)), dtype=np.int64):
        try:
            sides.append(min(corpus.read(int(index)).shape[:2]))
        except ImageError:
            continue  # the loader names it when its turn comes
    usual = int(np.median(sides)) if sides else 0
    for name, px in sizes.items():
        if sides and px > usual:
            raise ConfigError(
                f"{name}: crops of {px} px do not fit the tiles, which are of {usual} px: lower its"
                " px, or give larger tiles"
            )
