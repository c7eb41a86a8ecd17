"""Everything that decides the numbers in a feature file: the encoder and the user's settings."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathencoder.errors import ConfigError
from pathencoder.features.layouts import LAYOUTS, check_installed
from pathencoder.mpp import check_mpp
from pathencoder.slides.coords_file import read_coords
from pathencoder.slides.tissue_file import read_outlines
from pathencoder.views import check_views

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec
    from pathencoder.stream import Settings as StreamSettings

TISSUE = (
    "optical density against the glass, mask at 8 um/px, pen and shadows dropped, holes open,"
    " version 2"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How inputs are encoded.

    Attributes:
        output: Which numbers of the encoder, as `Encoder.encode` takes it, as is the next.
        views: Views over which each row is averaged.
        mpp: Micrometres per pixel of the images or slides; overrides the file. None: what a
            slide says; images are resized whole.
        target_mpp: Micrometres per pixel at which they are read. None: the encoder's.
        overlap_px: Overlap of neighbouring tiles of a slide, in pixels of the tile.
        min_tissue: Share of a slide's tile that must be tissue, 0 to 1.
        layout: Of a slide's file: one of `layouts.LAYOUTS`.
        precision: Of the network, as `Encoder.encode` takes it, as is the next.
        runtime: What computes. "auto" goes on with that of a file that was begun.
        tissue: GeoJSON of the areas of a slide to embed, in place of the tissue that is found.
        coords: HDF5 file with the coordinates of the tiles of a slide, in place of a grid.
        workers: Decoding threads. None: one a core, at most 16.
        batch_size: Tiles in a forward pass, or "auto".
        overwrite: Replace an existing file, and start again where a run was interrupted.
        qc: Also measure the quality of a slide's tiles (`slides.quality`). The rows do not depend
            on it.

    Raises:
        ConfigError: A scale, the views, the overlap, the tissue share or the layout is not valid.
        MissingExtra: The library of the layout is not installed.
    """

    output: str = "embedding"
    views: int = 1
    mpp: float | None = None
    target_mpp: float | None = None
    overlap_px: int = 0
    min_tissue: float = 0.25
    layout: str = "trident"
    precision: str = "auto"
    runtime: str | os.PathLike[str] = "auto"
    tissue: Path | None = None
    coords: Path | None = None
    workers: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    overwrite: bool = False
    qc: bool = False

    def __post_init__(self) -> None:
        for name, scale in (("mpp", self.mpp), ("target_mpp", self.target_mpp)):
            if scale is not None:
                object.__setattr__(self, name, check_mpp(scale, name))
        object.__setattr__(self, "views", check_views(self.views))
        overlap, share = self.overlap_px, self.min_tissue
        if isinstance(overlap, bool) or not isinstance(overlap, Integral) or overlap < 0:
            raise ConfigError(f"overlap_px={overlap!r}: a whole number of pixels, 0 or more")
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
            raise ConfigError(f"min_tissue={share!r}: a number from 0 to 1")
        object.__setattr__(self, "overlap_px", int(overlap))  # JSON knows no numbers of numpy
        object.__setattr__(self, "min_tissue", float(share))
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout={self.layout!r}: one of {', '.join(LAYOUTS)}")
        check_installed(self.layout)
        if self.coords is not None:
            self._check_coords()
        if self.output == "dense" and self.layout != "trident":
            raise ConfigError(
                f"output='dense' with layout={self.layout!r}: dense features are maps, which only"
                " the layout trident holds"
            )

    def of_network(self) -> StreamSettings:
        """The part that concerns the network."""
        from pathencoder import stream

        return stream.Settings(
            output=self.output,
            views=self.views,
            batch_size=self.batch_size,
            precision=self.precision,
            runtime=self.runtime,
            workers=self.workers,
        )

    def _check_coords(self) -> None:
        """Given coordinates decide where tiles lie and how wide they are."""
        for name, given in (
            ("--tissue (tissue)", self.tissue is not None),
            ("--target-mpp (target_mpp)", self.target_mpp is not None),
            ("--overlap (overlap_px)", bool(self.overlap_px)),
        ):
            if given:
                raise ConfigError(
                    f"{name} does not go with --coords (coords): the file of coordinates decides"
                    " where the tiles lie and how wide they are"
                )
        if self.layout == "stamp":
            raise ConfigError("layout='stamp' needs a regular grid, which given coords are not")


@dataclass(frozen=True)
class Provenance:
    """Everything that decides the numbers in a feature file.

    A run is resumed, and a file counts as done, only under the same provenance. Files hold it
    as JSON in the attribute `recipe`.

    Attributes:
        encoder: Name of the encoder.
        revision: Its revision on the Hub.
        sha256: Of its weights: of their file, or of the tensors of a network that was changed since
            it was loaded.
        output: Which numbers of the encoder.
        transform: The preprocessing, in one line.
        mpp: As the user gave it. None: the slide's own; images are resized whole.
        target_mpp: Micrometres per pixel at which the input was read.
        precision: That was used: fp32, bf16, fp16 or int8.
        runtime: That was used: torch, onnx or openvino.
        overlap_px: Slides only, as what follows.
        min_tissue: Share of a tile that must be tissue.
        tissue: The rules that found the tissue and their version, or the digest of the areas that
            were drawn or of the coordinates that were given.
        views: Over which each row is averaged; None: the image as it is.
        graph: sha256 of the exported file that computed, of int8: its rows depend on how it was
            calibrated.
        rounded: "float16" where a conversion rounded the rows, so that they are not taken for those
            of a run.
        readout: The rule of the output, where it is another than the encoder was loaded with.
    """

    encoder: str
    revision: str | None
    sha256: str | None
    output: str
    transform: str
    mpp: float | None
    target_mpp: float | None
    precision: str = "fp32"
    runtime: str = "torch"
    overlap_px: int | None = None
    min_tissue: float | None = None
    tissue: str | None = None
    views: int | None = None
    graph: str | None = None
    rounded: str | None = None
    readout: str | None = None

    def settings(self) -> dict[str, Any]:
        """The values that are set, as JSON holds them."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def slide_provenance(encoder: Encoder, settings: Settings) -> Provenance:
    """The provenance of slides.

    Raises:
        ConfigError: Neither the encoder nor the settings say at what scale to read them.
        SlideError: The file of areas or coordinates cannot be read.
    """
    return dataclasses.replace(_of_encoder(encoder, settings), **_of_grid(encoder.spec, settings))


def grid_recipe(spec: EncoderSpec, settings: Settings) -> dict[str, Any]:
    """Everything that decides where the tiles of a slide lie, as JSON holds it.

    Raises:
        PathEncoderError: As for `slide_provenance`.
    """
    recipe = {"tile_px": spec.input_size, "mpp": settings.mpp, **_of_grid(spec, settings)}
    return {name: value for name, value in recipe.items() if value is not None}


def _of_grid(spec: EncoderSpec, settings: Settings) -> dict[str, Any]:
    """The part of a slide's provenance that decides where its tiles lie."""
    if settings.coords is not None:
        return {"tissue": f"coordinates of sha256 {read_coords(settings.coords).sha256}"}
    return {
        "target_mpp": slide_target(spec, settings),
        "overlap_px": settings.overlap_px,
        "min_tissue": settings.min_tissue,
        "tissue": TISSUE if settings.tissue is None else _drawn(settings.tissue),
    }


def _drawn(file: Path) -> str:
    return f"areas drawn in a file of sha256 {read_outlines(file).sha256}"


def slide_target(spec: EncoderSpec, settings: Settings) -> float:
    """Micrometres per pixel at which slides are read.

    Raises:
        ConfigError: Neither the encoder nor the settings say it, or the overlap leaves no step.
    """
    target = settings.target_mpp or spec.mpp
    if target is None:
        low, high = spec.mpp_range or (0.25, 1.0)
        raise ConfigError(
            f"{spec.name} was not trained at one scale: choose one with --target-mpp (target_mpp="
            f" in Python), from {low:g} to {high:g}"
        )
    if settings.overlap_px >= spec.input_size:
        raise ConfigError(
            f"--overlap {settings.overlap_px} (overlap_px) leaves no step: tiles of {spec.name}"
            f" are {spec.input_size} px wide"
        )
    return target


def tiles_provenance(encoder: Encoder, settings: Settings) -> Provenance:
    """The provenance of tiles.

    Raises:
        ConfigError: The target scale cannot be reached.
    """
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
    """The mpp to pass to `Encoder.encode`, so that it resamples images to the target scale."""
    own = encoder.spec.mpp
    if settings.mpp is None or settings.target_mpp is None or own is None:
        return settings.mpp
    return settings.mpp * own / settings.target_mpp


def describe_transform(spec: EncoderSpec) -> str:
    """An encoder's preprocessing in one line."""
    how = (
        f"shortest side to {spec.resize_size}, centre {spec.input_size}"
        if spec.resize == "shortest"
        else f"whole to {spec.input_size}"
    )
    return f"{how} px, {spec.interpolation}, mean {_triple(spec.mean)}, std {_triple(spec.std)}"


def device_used(encoder: Encoder) -> str:
    """The kind of device that computes.

    It is recorded but not part of the provenance, since it changes last digits only.
    """
    device = encoder.device
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})"


def _of_encoder(encoder: Encoder, settings: Settings) -> Provenance:
    from pathencoder.outputs import readout
    from pathencoder.runtimes.unchanged import sha256_in_use

    spec = encoder.spec
    readout(encoder.network, spec, settings.output)  # refuses an output that the network lacks
    used = encoder.runtime_used(settings.of_network())
    return Provenance(
        encoder=spec.name,
        revision=spec.revision,
        sha256=sha256_in_use(encoder.network, encoder.origin),
        output=settings.output,
        transform=describe_transform(spec),
        mpp=settings.mpp,
        target_mpp=None,
        precision=used.precision,
        runtime=used.runtime,
        views=None if settings.views == 1 else settings.views,
        graph=used.graph_sha256,
        readout=own_readout(encoder, settings.output),
    )


def own_readout(encoder: Encoder, output: str) -> str | None:
    """The rule of an output that the spec decides, where it is not the one that was loaded."""
    now, then = encoder.spec, encoder.origin.spec if encoder.origin else None
    if output == "embedding" and (then is None or now.embedding != then.embedding):
        return now.embedding
    if output == "dense" and now.dense_stage != (then.dense_stage if then else None):
        return now.dense_stage or "last stage"
    return None


def _triple(values: tuple[float, float, float]) -> str:
    return "/".join(f"{v:.6g}" for v in values)
