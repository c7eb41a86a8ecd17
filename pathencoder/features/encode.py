"""`pathencoder.encode_slide`: a slide to features, from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pathencoder.errors import ConfigError
from pathencoder.features.given import path_given
from pathencoder.features.identity import Origin, Stat, refuse_input
from pathencoder.features.job import Outcome, Progress
from pathencoder.features.layouts import check_name, path_of
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import SlideTask, slide_to_files
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.remote.objects import is_remote
from pathencoder.remote.slides import find_slides
from pathencoder.remote.staging import Staging
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.slides.reader import Slide

log = logging.getLogger(__name__)

_PICTURES = (".jpg", ".jpeg", ".png")


def encode_slide(
    slide: str | os.PathLike[str] | Slide,
    out: str | os.PathLike[str] | None = None,
    *,
    encoder: Encoder | str | os.PathLike[str] | None = None,
    mpp: float | None = None,
    target_mpp: float | None = None,
    output: str = "embedding",
    views: int = 1,
    overlap_px: int = 0,
    min_tissue: float = 0.25,
    tissue: str | os.PathLike[str] | None = None,
    coords: str | os.PathLike[str] | None = None,
    layout: str = "trident",
    precision: str = "auto",
    runtime: str | os.PathLike[str] = "auto",
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    picture: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    qc: bool = False,
    progress: bool | Literal["auto"] = "auto",
) -> FeatureFile:
    """Embed the tissue tiles of a whole slide.

    The rows are those of `pathencoder encode SLIDE`, and so is the file. Tissue is found, a grid
    of tiles of the encoder's input size is laid over it, each tile is read at `target_mpp` and
    embedded.

        encoder = pathencoder.load_encoder()
        features = pathencoder.encode_slide("scan.svs", "features/scan.h5", encoder=encoder)
        features.rows, features.coords  # float32 [N, D], int64 [N, 2] in level-0 pixels

    Args:
        slide: A slide file, one file of a DICOM slide, or the folder of one; a slide that
            `open_slide` opened (it is opened again by its path); or the URL of a slide (s3://,
            gs://, az://, https://), which is copied to the temporary folder.
        out: The feature file to write, ending in .h5 (or as `layout` wants it); its folder is made
            where it is missing. A file of the same slide and settings is read, not made again, and
            an interrupted call is resumed by the next one. None: nothing is kept. The rows pass
            through a temporary file, which is deleted before the call returns, also when it is
            interrupted.
        encoder: An `Encoder`, or a name, folder or repository for `load_encoder`. None: the
            default encoder. Load it once for several slides.
        mpp: Micrometres per level-0 pixel; overrides what the slide says.
        target_mpp: Micrometres per pixel at which tiles are read. None: the encoder's own.
        output: "embedding", "cls", "mean", "cls_mean", "multi" or "dense", as for
            `Encoder.encode`.
        views: As for `Encoder.encode`: 4 or 8 average each row over turns of its tile.
        overlap_px: Overlap of neighbouring tiles, in pixels of the tile.
        min_tissue: Share of a tile that must be tissue, 0 to 1.
        tissue: GeoJSON of the areas to embed, in level-0 pixels, in place of the tissue that is
            found: QuPath's export, or what `pathencoder encode --save-tissue` wrote.
        coords: HDF5 file of TRIDENT's or CLAM's patches, or a feature file: the tiles at its
            coordinates are embedded, each resampled to the encoder's input, in place of a grid
            over tissue.
        layout: Of the file: "trident", "clam", "stamp", "anndata" (.h5ad) or "zarr" (a folder
            .zarr). "clam" wants an `out` of the form FOLDER/h5_files/NAME.h5, and writes
            FOLDER/pt_files/NAME.pt too.
        precision: As for `Encoder.encode`.
        runtime: As for `Encoder.encode`; "auto" goes on with that of a file that was begun.
        batch_size: Tiles in a forward pass, or "auto".
        workers: Threads that read and decode. None: one a core, at most 16.
        picture: A .jpg or .png to draw of the tissue and the tiles. A file of that name that
            pathencoder did not draw is kept, with a note, unless `overwrite`; the slide always.
        overwrite: Make the file again where it exists, and start again where a call was
            interrupted.
        qc: Also measure the quality of every tile: `features.qc` holds "qc_blur", "qc_pen",
            "qc_fold" and "tissue", float32 [N] each. No tile is left out for it. A file without
            it is completed: its tiles are read, not embedded, again.
        progress: "auto" (a bar on a terminal), True or False.

    Returns:
        What `read_features(out)` returns: `rows` float32 [N, D], `coords` int64 [N, 2] (top left
        corners, level-0 pixels), `failures` (tiles that could not be read), `notes` and
        `attributes`. Rows of the layout "stamp" were rounded to float16 in the file. A slide
        without tissue has no rows. Notes and failures are also logged as warnings of the logger
        "pathencoder".

    Raises:
        SlideError: The slide, or every tile of it, cannot be read; or its background is dark.
        MissingMpp: The slide does not say its scale: give `mpp`.
        ConfigError: A setting is not valid, or does not fit the encoder.
        StoreError: The file cannot be written, is damaged, was made from another slide or with
            other settings, or another process is writing it.
        MissingExtra: OpenSlide, or zarr for that layout, is not installed.
        PathEncoderError: The encoder cannot be loaded; see `load_encoder`.
    """
    settings = _settings(
        output=output,
        views=views,
        mpp=mpp,
        target_mpp=target_mpp,
        overlap_px=overlap_px,
        min_tissue=min_tissue,
        tissue=tissue,
        coords=coords,
        layout=layout,
        precision=precision,
        runtime=runtime,
        workers=workers,
        batch_size=batch_size,
        overwrite=overwrite,
        qc=qc,
    )
    source = _source(slide)
    drawing = None if picture is None else _picture(picture, source)
    file = None if out is None else _feature_file(out, layout)
    if file is None and layout != "trident":
        raise ConfigError(f"layout={layout!r} is the layout of a file: say which with out=")
    bar = _bar(printable(source.name), progress)
    files = None if file is None else [file]
    return _encoded(source, [as_encoder(encoder)], files, settings, drawing, bar)[0]


class SlideOptions(TypedDict, total=False):
    """The options of `encode_slide` that `encode_slide_jointly` takes too."""

    mpp: float | None
    target_mpp: float | None
    output: str
    views: int
    overlap_px: int
    min_tissue: float
    tissue: str | os.PathLike[str] | None
    coords: str | os.PathLike[str] | None
    layout: str
    precision: str
    runtime: str | os.PathLike[str]
    batch_size: int | Literal["auto"]
    workers: int | None
    overwrite: bool
    qc: bool


def encode_slide_jointly(
    slide: str | os.PathLike[str] | Slide,
    encoders: Sequence[Encoder | str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    progress: bool | Literal["auto"] = "auto",
    **options: Unpack[SlideOptions],
) -> dict[str, FeatureFile]:
    """Embed the tissue tiles of a whole slide with several encoders in one pass.

    The slide is opened and its tissue found once; tiles are read once for the encoders whose grids
    are equal. Rows and files are those of `encode_slide` with each encoder, and of `pathencoder
    encode SLIDE --encoder A --encoder B`.

        found = pathencoder.encode_slide_jointly("scan.svs", ["pathencoder-tiny", "uni"], "out")
        found["uni"].rows  # also in out/uni/scan.h5

    Args:
        slide: As for `encode_slide`.
        encoders: Encoders of different names, or names, folders or repositories for
            `load_encoder`.
        out: A folder; the file of an encoder is OUT/ENCODER/SLIDE.h5. None: nothing is kept.
        progress: As for `encode_slide`.
        **options: As for `encode_slide`, with the same defaults.

    Returns:
        For each name of an encoder what `encode_slide` returns.

    Raises:
        ConfigError: No encoder is given, or two have one name.
        PathEncoderError: As for `encode_slide`.
    """
    settings = _settings(**options)
    source = _source(slide)
    if isinstance(encoders, str | os.PathLike) or not encoders:
        raise ConfigError(f"encoders={encoders!r}: give a list of encoders")
    bar = _bar(printable(source.name), progress)
    networks = [as_encoder(one) for one in encoders]
    names = [network.spec.name for network in networks]
    if len(set(names)) < len(names):
        raise ConfigError(f"encoders: {', '.join(names)}: give each one once")
    files = None
    if out is not None:
        folders = [path_given(out, "out") / name.replace("/", "_") for name in names]
        files = [path_of(folder, source.stem, settings.layout) for folder in folders]
    elif settings.layout != "trident":
        raise ConfigError(
            f"layout={settings.layout!r} is the layout of a file: say where with out="
        )
    found = _encoded(source, networks, files, settings, None, bar)
    return dict(zip(names, found, strict=True))


def _settings(**given: Any) -> Settings:
    areas = {
        name: None if given.get(name) is None else path_given(given[name], name)
        for name in ("tissue", "coords")
    }
    return Settings(**{**given, **areas})


def _source(slide: object) -> Path:
    return path_given(getattr(slide, "path", slide), "slide")


def _encoded(
    source: Path,
    encoders: Sequence[Encoder],
    files: Sequence[Path] | None,
    settings: Settings,
    picture: Path | None,
    bar: contextlib.AbstractContextManager[Progress],
) -> list[FeatureFile]:
    """The features of each encoder; without files nothing is kept."""
    with bar as show, tempfile.TemporaryDirectory() as temporary, _here(source) as (here, origin):
        places = files or [Path(temporary) / f"{i}.h5" for i in range(len(encoders))]
        task = SlideTask(here, tuple(places), settings, picture, origin=origin)
        found = []
        for made in slide_to_files(encoders, task, progress=show):
            _log(source, made)
            assert made.file is not None
            features = read_features(made.file)
            found.append(features if files else _without_folder(features))
    return found


@contextlib.contextmanager
def _here(source: Path) -> Iterator[tuple[Path, Origin | None]]:
    """A slide on this machine: the path itself, or a copy of a remote one and where it is from."""
    if not is_remote(source):
        yield source, None
        return
    url = os.fspath(source)
    slides = find_slides(url).slides
    if len(slides) != 1:
        raise ConfigError(f"{url}: {len(slides)} slides lie there. Name one")
    with Staging(slides) as staging, staging.staged(slides[0]) as staged:
        yield staged.path, Origin(staged.slide.url, Stat(*staged.slide.version))


def as_encoder(encoder: Any) -> Encoder:
    """The encoder that an argument stands for.

    Args:
        encoder: An `Encoder`; a name, folder or repository for `load_encoder`; None for the default
            encoder.

    Raises:
        ConfigError: It is something else.
        PathEncoderError: It cannot be loaded; see `load_encoder`.
    """
    from pathencoder.encoder import Encoder, load_encoder

    if isinstance(encoder, Encoder):
        return encoder
    if encoder is None or isinstance(encoder, str | os.PathLike):
        return load_encoder(encoder)
    raise ConfigError(
        f"encoder={type(encoder).__name__}: an Encoder, or a name for load_encoder, is needed"
    )


def _feature_file(out: object, layout: str) -> Path:
    file = path_given(out, "out")
    check_name(file, layout)
    return file


def _picture(picture: object, slide: Path) -> Path:
    file = path_given(picture, "picture")
    if file.suffix.lower() not in _PICTURES:
        raise ConfigError(f"picture={printable(file)!r}: end it in {', '.join(_PICTURES)}")
    refuse_input(file, slide)  # before an encoder is loaded
    return file


def _bar(name: str, progress: object) -> contextlib.AbstractContextManager[Progress]:
    """A progress bar. Raises ConfigError, before it is entered, for an unknown `progress`."""
    if progress not in (True, False, "auto"):
        raise ConfigError(f"progress={progress!r}: 'auto', True or False")
    hidden = not progress or (progress == "auto" and not sys.stderr.isatty())
    return _shown(name, hidden=hidden)


@contextlib.contextmanager
def _shown(name: str, *, hidden: bool) -> Iterator[Progress]:
    from tqdm.std import tqdm

    with tqdm(total=0, desc=name, unit="tile", disable=hidden) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _log(source: Path, made: Outcome) -> None:
    name = printable(source)
    notes: Sequence[str] = made.notes
    for note in [*notes, *(["no tissue found"] if made.status == "empty" else [])]:
        log.warning("%s: %s", name, note)
    if made.failures:
        first = made.failures[0]
        log.warning(
            "%s: %d tiles could not be read (`failures` lists them), the first, at %s: %s",
            name,
            len(made.failures),
            first.part,
            first.reason,
        )


def _without_folder(features: FeatureFile) -> FeatureFile:
    """The same without the folder of the temporary file."""
    kept = {k: v for k, v in features.attributes.items() if k != "savetodir"}
    return dataclasses.replace(features, attributes=kept)
