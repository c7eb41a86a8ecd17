"""Tissue as GeoJSON: written for QuPath, and read back after a person has edited it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pathencoder.errors import SlideError
from pathencoder.files import whole_file
from pathencoder.geojson import Ring, class_of, features_of, geometry_of, polygons_of
from pathencoder.slides.rings import mask_of, rings_of
from pathencoder.slides.tissue import TissueMask
from pathencoder.walk import printable

SUFFIX = ".geojson"
_COLOUR = [0, 140, 60]  # of the annotations in QuPath
_TEXT = '{{"type":"FeatureCollection","features":[\n{}\n]}}\n'
_IGNORED = "ignore"  # QuPath's class "Ignore*" and its kin are cut out


@dataclass(frozen=True)
class Outlines:
    """Areas that a person drew on a slide.

    Attributes:
        path: The file.
        sha256: Of the file.
        areas: The polygons to embed, each a list of rings in level-0 pixels; none of a file that
            `write_tissue` wrote for a slide without tissue.
        cut_out: Polygons of the class "Ignore", taken out of the areas.
        note: What was read, as a sentence.
    """

    path: Path
    sha256: str
    areas: list[list[Ring]]
    cut_out: list[list[Ring]]
    note: str


def write_tissue(tissue: TissueMask, file: Path) -> Path:
    """Write the outlines of tissue as GeoJSON that QuPath opens.

    Args:
        tissue: The tissue of a slide.
        file: The file; one that exists is replaced when the new one is complete.

    Returns:
        The file. Coordinates are level-0 pixels, along the edges of the mask's pixels: reading
        the file gives the same mask.

    Raises:
        StoreError: It cannot be written.
    """
    scale, origin = np.array(tissue.scale), np.array(tissue.origin)
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(ring * scale + origin, 2).tolist() for ring in rings],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": "Tissue", "color": _COLOUR},
            },
        }
        for rings in rings_of(tissue.mask)
    ]
    lines = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in features)
    with whole_file(file) as temporary:
        temporary.write_text(_TEXT.format(lines), encoding="utf-8")
    return file


def keep_or_write_tissue(
    tissue: TissueMask, file: Path, *, drawn: Path | None, overwrite: bool
) -> list[str]:
    """Write the outlines of tissue, unless a person may have edited the file.

    Args:
        tissue: The tissue of a slide.
        file: The file.
        drawn: The file of drawn areas that `tissue` is of, which is never replaced; None: it was
            found.
        overwrite: Replace a file that exists.

    Returns:
        A note where a file that exists was kept, and may differ from the tissue.

    Raises:
        StoreError: It cannot be written.
    """
    if drawn is not None and file.exists() and file.samefile(drawn):
        return []
    if file.exists() and not overwrite:
        return [f"{printable(file)} is kept as it is, since it may have been edited"]
    write_tissue(tissue, file)
    return []


def read_outlines(file: Path) -> Outlines:
    """Read areas from GeoJSON, as QuPath exports it.

    Args:
        file: A FeatureCollection, a list of features, one feature or one geometry, in level-0
            pixels. Every polygon counts, whatever its class; those of QuPath's class "Ignore*" are
            cut out. Points and lines are counted in the note and not used.

    Returns:
        The areas.

    Raises:
        SlideError: The file cannot be read, is no GeoJSON, or holds no polygon; but one of
            `write_tissue` may hold none.
    """
    try:
        data = file.read_bytes()
        features = features_of(json.loads(data))
        found = [(class_of(f), area) for f in features for area in polygons_of(geometry_of(f))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise SlideError(
            f"{printable(file)}: no GeoJSON of areas ({error}). Export annotations from QuPath as"
            " a FeatureCollection"
        ) from error
    areas = [polygon for name, polygon in found if not name.casefold().startswith(_IGNORED)]
    if data.split() == _TEXT.format("").encode().split():
        note = f"no tissue was found when {printable(file.name)} was written: nothing is embedded"
        return Outlines(file, hashlib.sha256(data).hexdigest(), [], [], note)
    if not areas:
        raise SlideError(f"{printable(file)}: no polygon in it says where to embed tiles")
    return Outlines(
        file,
        hashlib.sha256(data).hexdigest(),
        areas,
        [polygon for name, polygon in found if name.casefold().startswith(_IGNORED)],
        _note(file, [name for name, _ in found], len(features)),
    )


def drawn_tissue(found: TissueMask, outlines: Outlines) -> TissueMask:
    """Outlines in place of the tissue that was found.

    Args:
        found: The tissue of the slide as it was found: its grid and picture are kept.
        outlines: What was drawn.

    Returns:
        A mask of the same shape. Nothing is dropped: who drew the areas decided.

    Raises:
        SlideError: There are areas, and no pixel of the mask lies in them.
    """
    origin, scale = np.array(found.origin), np.array(found.scale)

    def on_mask(polygons: list[list[Ring]]) -> list[list[Ring]]:
        return [[(ring - origin) / scale for ring in rings] for rings in polygons]

    shape = (found.mask.shape[0], found.mask.shape[1])
    mask = mask_of(on_mask(outlines.areas), shape) & ~mask_of(on_mask(outlines.cut_out), shape)
    if outlines.areas and not mask.any():
        raise SlideError(
            f"{printable(outlines.path)}: its areas lie outside the slide. Coordinates are level-0"
            " pixels of this slide"
        )
    return replace(found, mask=mask, notes=(outlines.note,), dropped={})


def _note(file: Path, classes: list[str], features: int) -> str:
    counts = Counter(name or "no class" for name in classes)
    listed = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
    note = f"areas drawn in {printable(file.name)} in place of the tissue found: {listed}"
    return note if len(classes) >= features else f"{note}; points and lines in it are not used"
