"""What decides the numbers in a feature file, gathered from an encoder and the user's settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pathencoder.errors import ConfigError
from pathencoder.mpp import check_mpp

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

TISSUE = (
    "optical density against the glass, mask at 8 um/px, pen and shadows dropped, holes open,"
    " version 2"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How inputs are encoded.

    mpp: of the images or slides, overrides the file. target_mpp: scale at which they are read;
    None: the encoder's.
    overlap_px: of neighbouring tiles, in pixels of the tile. min_tissue: share of a tile that must
    be tissue. precision: of the network,
    as `Encoder.encode` takes it. workers: decoding threads. overwrite: start anew.
    """

    output: str = "embedding"
    mpp: float | None = None
    target_mpp: float | None = None
    overlap_px: int = 0
    min_tissue: float = 0.25
    layout: str = "trident"
    precision: str = "auto"
    workers: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for scales that are none: text, NaN, or out of range."""
        for name, scale in (("mpp", self.mpp), ("target_mpp", self.target_mpp)):
            if scale is not None:
                check_mpp(scale, name)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the numbers in a feature file.

    Work goes on, and a file counts as done, only under the same recipe.
    """

    encoder: str
    revision: str | None
    sha256: str | None
    output: str
    transform: str
    # given by the user; None: the file's own (slides), tiles resized whole (tiles)
    mpp: float | None
    target_mpp: float | None
    precision: str = "fp32"  # that was used
    runtime: str = "torch"
    overlap_px: int | None = None  # this and what follows: slides only
    min_tissue: float | None = None
    tissue: str | None = None

    def settings(self) -> dict[str, Any]:
        """As JSON holds it, without what is not set."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def slide_recipe(encoder: Encoder, settings: Settings) -> Recipe:
    """The recipe of slides. Raises ConfigError when nothing says at what scale to read them."""
    spec = encoder.spec
    target = settings.target_mpp or spec.mpp
    if target is None:
        low, high = spec.mpp_range or (0.25, 1.0)
        raise ConfigError(
            f"{spec.name} was not trained at one scale: say which with --target-mpp, from {low:g}"
            f" to {high:g}"
        )
    return dataclasses.replace(
        _of_encoder(encoder, settings),
        target_mpp=target,
        overlap_px=settings.overlap_px,
        min_tissue=settings.min_tissue,
        tissue=TISSUE,
    )


def tiles_recipe(encoder: Encoder, settings: Settings) -> Recipe:
    """The recipe of tiles. Raises ConfigError for a target scale that cannot be reached."""
    spec = encoder.spec
    if settings.target_mpp is not None and (settings.mpp is None or spec.mpp is None):
        needs = (
            "--mpp, the micrometres per pixel that the images have"
            if settings.mpp is None
            else f"a scale that {spec.name} was trained at"
        )
        raise ConfigError(f"--target-mpp for tiles needs {needs}")
    return dataclasses.replace(
        _of_encoder(encoder, settings),
        target_mpp=None if settings.mpp is None else settings.target_mpp or spec.mpp,
    )


def tile_scale(encoder: Encoder, settings: Settings) -> float | None:
    """The mpp to tell the encoder of image tiles, so that it resamples them to the target instead of its own mpp."""
    own = encoder.spec.mpp
    if settings.mpp is None or settings.target_mpp is None or own is None:
        return settings.mpp
    return settings.mpp * own / settings.target_mpp


def describe_transform(spec: EncoderSpec) -> str:
    """An encoder's preprocessing in a line."""
    how = (
        f"shortest side to {spec.resize_size}, centre {spec.input_size}"
        if spec.resize == "shortest"
        else f"whole to {spec.input_size}"
    )
    return f"{how} px, {spec.interpolation}, mean {_triple(spec.mean)}, std {_triple(spec.std)}"


def device_used(encoder: Encoder) -> str:
    """The kind of device that computes.

    recorded, but part of no recipe, since it decides last digits only.
    """
    device = encoder.device
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})"


def _of_encoder(encoder: Encoder, settings: Settings) -> Recipe:
    spec = encoder.spec
    return Recipe(
        encoder=spec.name,
        revision=spec.revision,
        sha256=spec.sha256,
        output=settings.output,
        transform=describe_transform(spec),
        mpp=settings.mpp,
        target_mpp=None,
        precision=encoder.precision_used(settings.precision),
    )


def _triple(values: tuple[float, float, float]) -> str:
    return "/".join(f"{v:.6g}" for v in values)
