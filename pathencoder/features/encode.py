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
from typing import TYPE_CHECKING, Any, Literal

from pathencoder.errors import ConfigError
from pathencoder.features.identity import Origin, Stat
from pathencoder.features.job import Outcome, Progress
from pathencoder.features.layouts import check_name
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import slide_to_file
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.remote.objects import is_remote, url_path
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
    overlap_px: int = 0,
    min_tissue: float = 0.25,
    tissue: str | os.PathLike[str] | None = None,
    coords: str | os.PathLike[str] | None = None,
    layout: str = "trident",
    precision: str = "auto",
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
        batch_size: Tiles in a forward pass, or "auto".
        workers: Threads that read and decode. None: one a core, at most 16.
        picture: A .jpg or .png to draw of the tissue and the tiles.
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
    settings = Settings(
        output=output,
        mpp=mpp,
        target_mpp=target_mpp,
        overlap_px=overlap_px,
        min_tissue=min_tissue,
        tissue=None if tissue is None else _path(tissue, "tissue"),
        coords=None if coords is None else _path(coords, "coords"),
        layout=layout,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
        overwrite=overwrite,
        qc=qc,
    )
    source, drawing = (
        _path(getattr(slide, "path", slide), "slide"),
        None if picture is None else _picture(picture),
    )
    file = None if out is None else _feature_file(out, layout)
    if file is None and layout != "trident":
        raise ConfigError(f"layout={layout!r} is the layout of a file: say which with out=")
    bar = _bar(printable(source.name), progress)
    network = as_encoder(encoder)
    with bar as show, tempfile.TemporaryDirectory() as temporary, _here(source) as (here, origin):
        made = slide_to_file(
            network,
            here,
            file or Path(temporary) / "slide.h5",
            settings,
            picture=drawing,
            progress=show,
            origin=origin,
        )
        _log(source, made)
        assert made.file is not None
        features = read_features(made.file)
    return features if file is not None else _without_folder(features)


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


def _path(given: object, name: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{name}={type(given).__name__}: a path is needed")
    return url_path(given) if is_remote(given) else Path(given).expanduser()


def _feature_file(out: object, layout: str) -> Path:
    file = _path(out, "out")
    check_name(file, layout)
    return file


def _picture(picture: object) -> Path:
    file = _path(picture, "picture")
    if file.suffix.lower() not in _PICTURES:
        raise ConfigError(f"picture={printable(file)!r}: end it in {', '.join(_PICTURES)}")
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
