"""Convert feature files from one layout to another, also those that other tools wrote."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder._version import __version__
from pathencoder.errors import ConfigError
from pathencoder.features import checksums, containers, layouts
from pathencoder.features.finished import ANEW, refuse_lone_tensor
from pathencoder.features.given import is_number, path_given
from pathencoder.features.job import Outcome, partial_path
from pathencoder.features.journal import lock_of
from pathencoder.features.layouts import ANNOTATED, LAYOUTS, check_installed
from pathencoder.features.place import place_of
from pathencoder.features.provenance import Provenance
from pathencoder.features.store import Content, FeatureFile, read_features
from pathencoder.features.writer import write_features
from pathencoder.files import Mismatch, make_folder, of_one_input
from pathencoder.mpp import check_mpp

log = logging.getLogger(__name__)

# attributes that are written anew for each layout
# fmt: off
_ANEW = frozenset((
    "layout", "recipe", "failed_count", "slide_mpp", "tile_px", "tile_side_level0",
    "grid_origin_level0", "grid_stride_level0", "level0_width", "level0_height",
    "patch_size", "patch_size_level0", "patch_level", "level0_magnification",
    "target_magnification", "overlap", "name", "savetodir", "extractor", "unit",
    "tile_size_um", "tile_size_px", "feat_type", "code_hash", "downsample",
    "downsampled_level_dim", "level_dim", "save_path", "converted", "converted_by",
    "converted_from", "conversion_notes",
))
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Target:
    """What files are converted to.

    Attributes:
        layout: One of `layouts.LAYOUTS`.
        mpp: Micrometres per level-0 pixel of slides whose files do not state it.
        tile_side: Side of a tile in level-0 pixels, for files that do not state it.
        overwrite: Replace an existing file.

    Raises:
        ConfigError: A setting is not valid.
        MissingExtra: The library of the layout is not installed.
    """

    layout: str
    mpp: float | None = None
    tile_side: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout={self.layout!r}: one of {', '.join(LAYOUTS)}")
        check_installed(self.layout)
        if self.mpp is not None:
            object.__setattr__(self, "mpp", check_mpp(self.mpp))
        side = self.tile_side
        if side is not None and not (is_number(side) and 0 < side < 1e6):
            raise ConfigError(f"tile_side={self.tile_side!r}: a number of pixels above zero")


def convert_features(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str,
    mpp: float | None = None,
    tile_side: float | None = None,
    overwrite: bool = False,
) -> FeatureFile:
    """Convert a feature file to another layout.

        pathencoder.convert_features("features/slide.h5", "stamp/slide.h5", layout="stamp")

    The provenance is kept. What a layout cannot hold is refused: images have no place in trident,
    clam and stamp, maps (output "dense") only in trident, numbers beyond 65,504 and tiles without
    a regular grid not in stamp.

    Args:
        source: A feature file of this package in any layout, or of TRIDENT, CLAM or STAMP.
        out: The file to write; its suffix is that of the layout (.h5, .h5ad, .zarr). For "clam",
            FOLDER/h5_files/NAME.h5; FOLDER/pt_files/NAME.pt is written too.
        layout: "trident", "clam", "stamp", "anndata" or "zarr".
        mpp: Micrometres per level-0 pixel of the slide, where the file does not state it.
        tile_side: Side of a tile in level-0 pixels, where the file does not state it.
        overwrite: Replace an existing file.

    Returns:
        What `read_features(out)` returns. What was assumed or rounded is in the attribute
        `conversion_notes`, and logged as warnings of the logger "pathencoder".

    Raises:
        StoreError: The source cannot be read, does not fit the layout, or does not state what the
            layout needs; or `out` exists and was not made from it, or cannot be written.
        ConfigError: A setting is not valid.
        MissingExtra: The layout is zarr, and zarr is not installed.
    """
    target = Target(layout=layout, mpp=mpp, tile_side=tile_side, overwrite=overwrite)
    there, file = path_given(source, "source"), path_given(out, "out")
    layouts.check_name(file, layout)
    made = convert_file(there, file, target)
    for note in made.notes:
        log.warning("%s: %s", source, note)
    return read_features(file)


def convert_file(source: Path, file: Path, target: Target) -> Outcome:
    """Convert one file, unless an earlier run did.

    Args:
        source: A feature file.
        file: The file to write.
        target: What it is converted to.

    Returns:
        The status (done, empty, before), the number of rows, and notes on what was assumed or
        rounded.

    Raises:
        Mismatch: As the StoreError of `convert_features`, where it concerns this file alone.
        Busy: Another process is writing the file.
        StoreError: The file cannot be written.
    """
    started = time.monotonic()
    found = _read(source)
    if file.exists() and os.path.samefile(source, file):
        raise Mismatch(f"{file} is the input itself: choose another --out")
    made_from = _made_from(source, found, target)
    make_folder(file.parent)
    lock = lock_of(partial_path(file))
    try:
        notes = None if target.overwrite else _before(source, file, made_from, target)
        if notes is not None:
            return Outcome(source, "before", file, len(found.rows), notes=notes)
        notes = list[str]()
        content = _content(source, found, made_from, target, notes)
        write_features(
            file,
            content,
            len(found.rows),
            found.rows.shape[1:],
            lambda start, stop: found.rows[start:stop],
            lock.confirm,
        )
    finally:
        lock.release()
    status, count = ("done" if len(found.rows) else "empty"), len(found.rows)
    return Outcome(source, status, file, count, count, time.monotonic() - started, notes=notes)


def _read(source: Path) -> FeatureFile:
    """The source; its faults concern this file alone."""
    with of_one_input():
        return read_features(source)


def _made_from(source: Path, found: FeatureFile, target: Target) -> dict[str, Any]:
    """What decides the content of the new file."""
    return {
        "path": os.path.abspath(source),
        "layout": found.layout,
        "digest": checksums.digest_of(source),
        "mpp": target.mpp,
        "tile_side": target.tile_side,
    }


def _before(
    source: Path, file: Path, made_from: dict[str, Any], target: Target
) -> list[str] | None:
    """The notes of an earlier conversion; None where there is none, or one of its files is missing.

    Raises Mismatch where the file exists and is something else, or its tensor exists without it.
    """
    refuse_lone_tensor(file, target.layout)
    if not file.exists():
        return None
    try:
        with containers.opened(file, rows=False) as opened:
            there = json.loads(opened.attrs.get("converted_from", "{}"))
            layout, notes = opened.attrs.get("layout"), opened.attrs.get("conversion_notes", "")
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        raise Mismatch(f"{file} exists and cannot be read: {error}. {ANEW}") from error
    if layout != target.layout or {**there, "path": ""} != {**made_from, "path": ""}:
        raise Mismatch(
            f"{file} exists and was not converted from {source} as it is now, with these settings:"
            f" nothing is overwritten. {ANEW}"
        )
    if target.layout == "clam" and not layouts.tensor_path(file).exists():
        return None
    return str(notes).splitlines()


def _content(
    source: Path,
    found: FeatureFile,
    made_from: dict[str, Any],
    target: Target,
    notes: list[str],
) -> Content:
    """All but the rows; `notes` gets what was assumed and what is lost."""
    _refuse_form(source, found, target.layout)
    provenance = _provenance(source, found, target.layout)
    place = None
    if found.coords is not None:
        place = place_of(source, found, target.mpp, target.tile_side, target.layout, notes)
    if found.keys and found.layout not in ANNOTATED:
        notes.append("the sizes, times and hashes of the images are not kept")
    if found.layout == "stamp" and target.layout != "stamp":
        notes.append("the rows are those of the layout stamp, rounded to float16")
    elif target.layout == "stamp":
        notes.append(_rounding(found.rows))
    if provenance is None:
        notes.append("another program computed the rows: how is not recorded")
    facts = {k: v for k, v in found.attributes.items() if k not in _ANEW}
    if provenance is None:
        encoder = facts.get("encoder") or found.attributes.get("extractor")
        facts = {**facts, "encoder": encoder, "created": None, "pathencoder_version": None}
        if place is not None:
            facts |= {"slide": place.slide, "overlap_px": place.overlap_px or None}
    else:
        facts = {k: v for k, v in facts.items() if k not in provenance.settings()}
    facts |= {
        "converted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "converted_by": f"pathencoder {__version__}",
        "converted_from": json.dumps(made_from),
        "conversion_notes": "\n".join(notes),
    }
    return Content(
        provenance,
        found.failures,
        facts,
        place=place,
        keys=found.keys or (),
        layout=target.layout,
        qc=found.qc,
    )


def _refuse_form(source: Path, found: FeatureFile, layout: str) -> None:
    """Raises Mismatch where a layout cannot hold the kind of rows."""
    if found.rows.ndim > 2 and layout != "trident":
        raise Mismatch(
            f"{source} holds maps (output dense), which only the layout trident can hold"
        )
    if found.coords is None and layout not in ANNOTATED:
        raise Mismatch(
            f"{source} holds no coordinates of tiles (it is of images, or one vector of a slide):"
            " only the layouts anndata and zarr hold that"
        )


def _provenance(source: Path, found: FeatureFile, layout: str) -> Provenance | None:
    """The provenance that the file states; None in files of other programs.

    Rows that were rounded say so: `encode` does not take them for its own.
    """
    recipe = found.attributes.get("recipe")
    if not recipe:
        return None
    settings = {
        **dict.fromkeys(f.name for f in dataclasses.fields(Provenance)),
        "precision": "fp32",
        "runtime": "torch",
        **json.loads(recipe),
    }
    if found.layout == "stamp":
        settings["rounded"] = "float16"
    if layout == "stamp":
        settings["rounded"] = None
    try:
        return Provenance(**settings)
    except TypeError as error:
        raise Mismatch(
            f"{source} was written by another version of pathencoder, with settings that this one"
            f" does not know ({error}). Install that version or a newer one"
        ) from error


def _rounding(rows: Any) -> str:
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.abs(rows - rows.astype(np.float16))
    largest = float(np.max(away, initial=0.0, where=np.isfinite(away)))
    return f"the rows are rounded to float16, by {largest:.2g} at most"
