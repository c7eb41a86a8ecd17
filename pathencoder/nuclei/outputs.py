"""Files of the objects of one image: label map, GeoJSON for QuPath, table, overlay."""

from __future__ import annotations

import csv
import io
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pathencoder.files import whole_file
from pathencoder.nuclei.instances import Labels, tools
from pathencoder.nuclei.measure import Measurements
from pathencoder.nuclei.outlines import contours
from pathencoder.nuclei.segment import Nuclei
from pathencoder.walk import printable

Facts = Mapping[str, Any]  # values that describe a whole image, by name

# Outline colours, RGB: visible on nuclei and tissue, and of different brightness.
POSITIVE, NEGATIVE, NUCLEUS = (230, 0, 60), (60, 235, 90), (250, 220, 40)
_CLASSES = {"Positive": (250, 62, 62), "Negative": (112, 112, 225)}  # QuPath's colours
SUFFIXES = (".geojson", ".labels.png", ".labels.tif", ".csv", ".overlay.png")
_STAMP = "pathencoder"  # key of the facts in the GeoJSON and in the overlay
_LONGEST_HEAD = 1 << 20  # characters of the GeoJSON's first line
_TOLERANCE = 0.5  # px: largest distance of an outline in GeoJSON from the edges of the pixels
_STRIP = 1024  # rows outlined at a time
_SPACE = uuid.UUID("6d1f8a52-93a4-4c3e-9c7b-2f6f0f6f8e11")  # namespace of the ids of nuclei


@dataclass(frozen=True)
class Kind:
    """What the objects are.

    Attributes:
        noun: In the names of measurements.
        object_type: "detection" or "annotation", for QuPath: annotations can hold detections.
        name: Of their class in QuPath; "" for none.
        line_um: Width of outlines in the overlay, at least a pixel.
    """

    noun: str = "Nucleus"
    object_type: str = "detection"
    name: str = ""
    line_um: float = 0.5


NUCLEI = Kind()


def write_all(
    nuclei: Nuclei,
    image: NDArray[np.uint8],
    folder: Path,
    name: str,
    *,
    offset: tuple[int, int] = (0, 0),
    columns: Facts | None = None,
    facts: Facts | None = None,
    kind: Kind = NUCLEI,
) -> list[Path]:
    """Write `<name>.labels.png` (or .tif), `.geojson`, `.csv` and `.overlay.png`.

    Args:
        nuclei: Of the image.
        image: uint8 RGB [H, W, 3].
        folder: An existing folder, with the folders in `name`.
        name: Of the files; may begin with folders.
        offset: Level-0 (x, y) of the first pixel of the image, for a region of a slide.
        columns: Values that describe the image, repeated in each row of the table.
        facts: The source and the settings, as JSON values. Kept in the GeoJSON, which is written
            first, and in the overlay, which is written last (see `read_finished`).
        kind: What the objects are.

    Returns:
        The four paths, the label map first.

    Raises:
        StoreError: A file cannot be written.
    """
    facts = facts or {}
    write_geojson(folder / f"{name}.geojson", geojson(nuclei, name, offset, facts, kind))
    labels = write_labels(nuclei.labels, folder, name)
    write_table(folder / f"{name}.csv", table(nuclei.table, offset, columns))
    write_overlay(folder / f"{name}.overlay.png", overlay(nuclei, image, kind), facts)
    return [labels, *(folder / f"{name}{end}" for end in (".geojson", ".csv", ".overlay.png"))]


def write_geojson(file: Path, pieces: Iterator[str]) -> None:
    """Write the pieces of a text. Raises StoreError."""
    with whole_file(file) as path, path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(pieces)


def write_table(file: Path, text: str) -> None:
    """Write the text of a table. Raises StoreError."""
    with whole_file(file) as path:
        path.write_text(text, encoding="utf-8", newline="")


def write_overlay(file: Path, picture: NDArray[np.uint8], facts: Facts) -> None:
    """Write a picture that holds the facts. Raises StoreError."""
    with whole_file(file) as path:
        note = PngImagePlugin.PngInfo()
        note.add_text(_STAMP, json.dumps(facts))
        Image.fromarray(picture).save(path, format="PNG", pnginfo=note)


def read_facts(folder: Path, name: str) -> dict[str, Any] | None:
    """The `facts` in the GeoJSON of a name, or in the overlay if that is missing, or None."""
    if not (folder / f"{name}.geojson").exists():
        return _facts_in_overlay(folder, name)
    try:
        with (folder / f"{name}.geojson").open(encoding="utf-8") as stream:
            facts = json.loads(stream.readline(_LONGEST_HEAD) + "]}").get(_STAMP)
    except (OSError, ValueError, AttributeError):
        return None
    return facts if isinstance(facts, dict) else None


def read_finished(folder: Path, name: str) -> dict[str, Any] | None:
    """The `facts` of a name whose files exist and are of one run, else None.

    Facts whose "label_map" is False are of results without one.
    """
    facts = read_facts(folder, name)
    rest = [folder / f"{name}.geojson", folder / f"{name}.csv"]
    if facts is None or facts.get("label_map", True):
        rest.append(labels_file(folder, name) or folder / f"{name}.labels.png")
    complete = all(file.exists() for file in rest)
    return facts if complete and _facts_in_overlay(folder, name) == facts else None


def _facts_in_overlay(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        with warnings.catch_warnings(), Image.open(folder / f"{name}.overlay.png") as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            facts = json.loads(str(picture.info.get(_STAMP, "")))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return facts if isinstance(facts, dict) else None


def labels_file(folder: Path, name: str) -> Path | None:
    """The label map of an image; None without one."""
    here = [file for file in _label_files(folder, name) if file.exists()]
    # earlier versions left the one of the other form, which was older
    return max(here, key=lambda file: file.stat().st_mtime_ns, default=None)


def _label_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The two forms of a label map."""
    return folder / f"{name}.labels.png", folder / f"{name}.labels.tif"


def write_labels(labels: Labels, folder: Path, name: str) -> Path:
    """Write the label map: a 16-bit PNG, or a 32-bit TIFF for more than 65,535 nuclei.

    An earlier one of the other form is removed.
    """
    few = labels.max(initial=0) <= np.iinfo(np.uint16).max
    small, large = _label_files(folder, name)
    final, other = (small, large) if few else (large, small)
    with whole_file(final) as path:
        Image.fromarray(labels.astype(np.uint16) if few else labels).save(
            path, format="PNG" if few else "TIFF"
        )
    other.unlink(missing_ok=True)
    return final


def table(
    measurements: Measurements,
    offset: tuple[int, int] = (0, 0),
    facts: Facts | None = None,
) -> str:
    """CSV text, a row for each nucleus in the order of its label.

    Args:
        measurements: Of each nucleus.
        offset: Level-0 (x, y) of the first pixel of the image.
        facts: Values that describe the image, repeated in every row as columns.

    Returns:
        The text; its first line holds the names of the columns.
    """
    m = measurements
    columns: dict[str, NDArray[Any]] = {"label": np.arange(1, len(m) + 1)}
    columns |= {"x": m.x + offset[0], "y": m.y + offset[1]}
    columns |= {"area_px": m.area, "area_um2": m.area_um2}
    columns |= {"eccentricity": m.eccentricity, "hematoxylin_od": m.hematoxylin}
    if m.dab is not None and m.positive is not None:
        columns |= {"dab_od": m.dab, "positive": m.positive.astype(int)}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*columns, *(facts or {})])
    same = list((facts or {}).values())
    for row in zip(*columns.values(), strict=True):
        writer.writerow([*map(_short, row), *same])
    return text.getvalue()


def geojson(
    nuclei: Nuclei,
    name: str,
    offset: tuple[int, int] = (0, 0),
    facts: Facts | None = None,
    kind: Kind = NUCLEI,
) -> Iterator[str]:
    """GeoJSON text of a FeatureCollection of QuPath objects, in pieces.

    Args:
        nuclei: Outlines are simplified by up to half a pixel, in level-0 pixels; DAB-positive and
            negative nuclei have classes.
        name: The ids of nuclei are derived from it, so that a repeated command gives the same ids.
        offset: Level-0 (x, y) of the first pixel of the image.
        facts: Values that describe the image, kept as the member "pathencoder" in the first line.
        kind: What the objects are.

    Yields:
        Parts of the text, one for each nucleus, so that it is never in memory as a whole.
    """
    features = (
        feature(
            f'{{"type":"Polygon","coordinates":[{_points(ring, offset)}]}}',
            _properties(nuclei, label, kind),
            f"{printable(name)}/{label}",
        )
        for label, ring in contours(nuclei.labels, _TOLERANCE)
    )
    yield from collection(features, facts)


def collection(features: Iterator[str], facts: Facts | None = None) -> Iterator[str]:
    """The text of a FeatureCollection, in pieces; the first line holds the facts."""
    about = f'"{_STAMP}":{_compact(facts)},' if facts else ""
    yield f'{{"type":"FeatureCollection",{about}"features":[\n'
    for number, text in enumerate(features):
        yield (",\n" if number else "") + text
    yield "]}\n"


def feature(geometry: str, properties: Facts, identity: str) -> str:
    """One feature as text.

    Args:
        geometry: As JSON text.
        properties: As JSON values.
        identity: The id is derived from it.
    """
    number = uuid.uuid5(_SPACE, identity)
    shape = f'"geometry":{geometry}'
    return f'{{"type":"Feature","id":"{number}",{shape},"properties":{_compact(properties)}}}'


def overlay(nuclei: Nuclei, image: NDArray[np.uint8], kind: Kind = NUCLEI) -> NDArray[np.uint8]:
    """The image with every nucleus outlined.

    Args:
        nuclei: Of the image.
        image: uint8 RGB [H, W, 3].
        kind: What the objects are.

    Returns:
        uint8 RGB [H, W, 3]: the image with outlines inside the nuclei, half a micrometre wide;
        yellow, or red (positive) and green (negative) for nuclei in IHC.
    """
    ndimage, *_ = tools()
    width = min(max(1, round(kind.line_um / nuclei.mpp)), 8)
    picture, colours = image.copy(), _colours(nuclei.table, kind)
    for top in range(0, len(picture), _STRIP):
        above = min(top, width)
        around = nuclei.labels[top - above : top + _STRIP + width]
        inner = (ndimage.minimum_filter(around, 2 * width + 1) == around)[above:][:_STRIP]
        labels = nuclei.labels[top : top + _STRIP]
        line = (labels > 0) & ~inner
        picture[top : top + _STRIP][line] = colours[labels[line] - 1]
    return picture


def _colours(table: Measurements, kind: Kind) -> NDArray[np.uint8]:
    if table.positive is None or kind != NUCLEI:
        return np.tile(np.array(NUCLEUS, np.uint8), (len(table), 1))
    positive, negative = (np.array(colour, np.uint8) for colour in (POSITIVE, NEGATIVE))
    return np.where(table.positive[:, None], positive, negative)


def _properties(nuclei: Nuclei, label: int, kind: Kind) -> dict[str, Any]:
    measured = _measurements(nuclei.table, label - 1, kind.noun)
    properties: dict[str, Any] = {"objectType": kind.object_type, "measurements": measured}
    if kind.name:
        properties["classification"] = {"name": kind.name, "color": NUCLEUS}
    elif nuclei.table.positive is not None:
        name = "Positive" if nuclei.table.positive[label - 1] else "Negative"
        properties["classification"] = {"name": name, "color": _CLASSES[name]}
    return properties


def _points(ring: NDArray[np.float64], offset: tuple[int, int]) -> str:
    """Points as JSON; they are multiples of half a pixel, so one decimal is exact."""
    halves = np.rint(2 * (ring + offset)).astype(np.int64).tolist()
    return "[" + ",".join(f"[{_half(x)},{_half(y)}]" for x, y in halves) + "]"


def _half(count: int) -> str:
    return f"{count / 2:.1f}" if count & 1 else str(count >> 1)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _measurements(table: Measurements, row: int, noun: str) -> dict[str, float]:
    named = {
        f"{noun}: Area px^2": table.area,
        f"{noun}: Area µm^2": table.area_um2,
        f"{noun}: Eccentricity": table.eccentricity,
        f"{noun}: Hematoxylin OD mean": table.hematoxylin,
        f"{noun}: DAB OD mean": table.dab,
    }
    return {key: _short(column[row]) for key, column in named.items() if column is not None}


def _short(value: Any) -> Any:
    return int(value) if float(value).is_integer() else round(float(value), 4)
