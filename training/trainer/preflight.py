"""Checks before a run starts: whether crops, tiles and network match.

The network is built on the meta device, and a few tiles are read. Starting weights are checked by
their sha256, and k-NN sets that are not there are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pathencoder.errors import ConfigError, ImageError
from pathencoder.pretrained.locate import check_sha256
from training.backbones import known_starts, make
from training.config import Config
from training.data.tiles import Corpus
from training.methods import MethodSettings

log = logging.getLogger("training")

_TILES = 32  # tiles whose size is read
_SQUARE = 1.02  # times the shorter side: a longer side up to which a tile is square
_FAR = 1.5  # times the canvas, or a part of it: a size from which on a warning is given


def crop_sizes(method: MethodSettings) -> dict[str, int]:
    """The side in pixels of each kind of crop of a method: method.NAME -> px."""
    return {f"method.{name}": px for name, px in method.crop_sizes().items()}


def check(cfg: Config, corpus: Corpus) -> None:
    """Check the starting weights of a config, and its crops against its tiles and its network.

    Raises:
        ConfigError: The starting weights are not there, crops are larger than the tiles, or the
            network does not accept their size.
        ChecksumError: The starting weights are not those that the config names.
    """
    refuse_other_start(cfg)
    sizes = crop_sizes(cfg.method)
    shapes = _shapes(corpus)
    sides = [min(shape) for shape in shapes]
    _refuse_small_tiles(sizes, sides)
    if cfg.data.mpp is None:  # otherwise a field of one size is cut from every tile
        _warn_of_oblong(shapes)
        _warn_of_other_sizes(cfg.data.canvas, sides)
    else:
        _say_fields(cfg.data.canvas, cfg.data.mpp, corpus)
    if not cfg.method.own_network:
        for name, px in sizes.items():
            refuse_network(cfg, name, px)


def refuse_other_start(cfg: Config) -> None:
    """Check that a file of starting weights is there and has the sha256 of the config.

    Raises:
        ConfigError: There is no such file. The message says how known weights are obtained.
        ChecksumError: The file has another sha256.
    """
    start, expected = cfg.backbone.start, cfg.backbone.start_sha256
    if start is None or Path(start).suffix != ".safetensors":
        return
    if not Path(start).is_file():
        raise ConfigError(
            f"backbone.start: there is no file {str(start)!r}. "
            + known_starts.how_to_obtain(expected, Path(start))
        )
    check_sha256(Path(start), expected)


def knn_sets_there(cfg: Config) -> tuple[Path, ...]:
    """The k-NN sets of a config that exist."""
    return tuple(folder for folder in cfg.run.knn_sets if (folder / "labels.csv").is_file())


def refuse_network(cfg: Config, name: str, px: int) -> None:
    """Check that the backbone accepts images of a size.

    Args:
        cfg: The settings.
        name: The setting that has the size, for the message.
        px: The side of the images in pixels.

    Raises:
        ConfigError: It does not.
    """
    with torch.device("meta"):
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None})).eval()
        try:
            network(torch.empty(2, 3, px, px))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{name}: {cfg.backbone.architecture} does not accept crops of {px} px ({error}):"
                " choose a multiple of its patch size, and backbone.args={dynamic_img_size: true}"
                " for a ViT"
            ) from None


def unsafe_in_bf16(cfg: Config) -> str | None:
    """Find a convolution whose gradient would be wrong in bf16 on a CPU.

    oneDNN's bf16 gradient of a strided convolution larger than 1 x 1 reads outside the input if the
    input has a height or width of one pixel (seen with torch 2.13; all other shapes that were tried
    agree with float64). Crops that give the last stage more than one pixel are safe.

    Args:
        cfg: The settings.

    Returns:
        The first such convolution and its crop in words; None if there is none.
    """
    if cfg.method.own_network:
        return None
    found: list[str] = []
    with torch.device("meta"):
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None})).eval()
        for name, px in sorted(crop_sizes(cfg.method).items(), key=lambda item: item[1]):
            handles = [
                m.register_forward_pre_hook(_find_one_pixel(found, n))
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


def _find_one_pixel(found: list[str], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if min(inputs[0].shape[-2:]) == 1:
            found.append(name)

    return hook


def _shapes(corpus: Corpus) -> list[tuple[int, int]]:
    """Height and width of some tiles, evenly spaced in the corpus, px."""
    shapes = []
    for index in np.linspace(0, len(corpus) - 1, min(_TILES, len(corpus)), dtype=np.int64):
        try:
            shapes.append(corpus.read(int(index)).shape[:2])
        except ImageError:
            continue  # the loader logs it when it draws it
    return shapes


def _warn_of_oblong(shapes: list[tuple[int, int]]) -> None:
    """Say how many tiles are not square: training sees their central square alone."""
    longer = [max(shape) / min(shape) for shape in shapes]
    oblong = [ratio for ratio in longer if ratio > _SQUARE]
    if oblong:
        log.warning(
            "of %d tiles that were read, %d are not square (sides as 1 to %.2f): their central"
            " square is used, and what lies beside it is never seen. Cut square tiles",
            len(shapes),
            len(oblong),
            max(oblong),
        )


def _refuse_small_tiles(sizes: dict[str, int], sides: list[int]) -> None:
    usual = int(np.median(sides)) if sides else 0
    for name, px in sizes.items():
        if sides and px > usual:
            raise ConfigError(
                f"{name}: crops of {px} px are larger than the tiles ({usual} px): choose smaller"
                " crops or larger tiles"
            )


def _warn_of_other_sizes(canvas: int, sides: list[int]) -> None:
    """Say how many tiles are much larger or smaller than the canvas that they are resized to."""
    kinds = {
        "reduced": [side for side in sides if side > _FAR * canvas],
        "enlarged": [side for side in sides if side < canvas / _FAR],
    }
    for what, found in kinds.items():
        if found:
            log.warning(
                "data.canvas=%d: of %d tiles that were read, %d have sides of %d to %d px and are"
                " %s to %d px, so that their scale in the crops is another one. Choose data.canvas"
                " near the size of the tiles, or cut tiles of one size",
                canvas,
                len(sides),
                len(found),
                min(found),
                max(found),
                what,
                canvas,
            )


def _say_fields(canvas: int, mpp: float, corpus: Corpus) -> None:
    """Log how many tiles have no stated scale, or are smaller than the field of data.mpp.

    Raises ConfigError where no tile has a scale.
    """
    scale = corpus.contents.scale
    if scale is None:
        raise ConfigError(
            f"data.mpp={mpp:g}: no table states the scale of the tiles. Add a column mpp_value to"
            " manifest.csv or slides.csv, or leave data.mpp out"
        )
    seen = np.linspace(0, len(corpus) - 1, min(_TILES, len(corpus)), dtype=np.int64)
    small = known = 0
    for index in seen:
        stated = corpus.mpp_of(int(index))
        try:
            side = min(corpus.read(int(index)).shape[:2])
        except ImageError:
            continue
        known += not np.isnan(stated)
        small += side * stated < 0.9 * canvas * mpp  # False for NaN
    log.warning(
        "data.mpp=%g: crops are cut from %.0f um. %d of %d tiles have no stated scale and are used"
        " whole; of %d that were read, %d are smaller than that and are enlarged",
        mpp,
        canvas * mpp,
        len(corpus) - scale.tiles,
        len(corpus),
        known,
        small,
    )
