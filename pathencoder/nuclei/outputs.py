"""Files of one image's nuclei: label map, GeoJSON for QuPath, table, overlay picture. Each appears whole or not at all."""

from __future__ import annotations

import csv
import io
import itertools
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pathencoder.nuclei.instances import Labels, tools
from pathencoder.nuclei.measure import Measurements
from pathencoder.nuclei.outlines import contours
from pathencoder.nuclei.segment import Nuclei
from pathencoder.slides.files import whole_file
from pathencoder.walk import printable

Facts = Mapping[str, str | int | float]  # what is known of a whole image, by name

POSITIVE, NEGATIVE, NUCLEUS = (200, 60, 40), (60, 90, 210), (250, 220, 40)  # outline colours, RGB
_STAMP = "pathencoder"  # key of the text in the overlay
_TOLERANCE = 0.5  # px: how far an outline in GeoJSON may leave the pixels' edges
_STRIP = 1024  # rows outlined at a time
_SPACE = uuid.UUID("6d1f8a52-93a4-4c3e-9c7b-2f6f0f6f8e11")  # so that one nucleus keeps its id when a command is run again


def write_all(
    nuclei: Nuclei,
    image: NDArray[np.uint8],
    folder: Path,
    name: str,
    *,
    offset: tuple[int, int] = (0, 0),
    stamp: str = "",
    facts: Facts | None = None,
) -> list[Path]:
    """Write `<name>.labels.png` (or .tif), `.geojson`, `.csv` and `.overlay.png`.

    The overlay is written last and carries `stamp` as a PNG text (see `read_stamp`): where it is,
    all is.

    Args:
        nuclei: What was found in the image.
        image: uint8 [H, W, 3].
        folder: Exists already.
        name: Of the files.
        offset: Level-0 (x, y) of the image's first pixel, for a region of a slide.
        stamp: How the files were made.
        facts: About the whole image, kept in the table and the GeoJSON.

    Returns:
        The four paths.

    Raises:
        StoreError: A file cannot be written.
    """
    written = [write_labels(nuclei.labels, folder, name)]
    pieces = {".geojson": geojson(nuclei, name, offset, facts), ".csv": iter([table(nuclei.table, offset, facts)])}
    for suffix, text in pieces.items():
        with whole_file(folder / f"{name}{suffix}") as path, path.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(text)
        written.append(folder / f"{name}{suffix}")
    with whole_file(folder / f"{name}.overlay.png") as path:
        note = PngImagePlugin.PngInfo()
        note.add_text(_STAMP, stamp)
        Image.fromarray(overlay(nuclei, image)).save(path, format="PNG", pnginfo=note)
    return [*written, folder / f"{name}.overlay.png"]


def read_stamp(folder: Path, name: str) -> str | None:
    """The stamp of an image whose four files are all there, else None."""
    rest = [folder / f"{name}{suffix}" for suffix in (".geojson", ".csv")]
    if labels_file(folder, name) is None or not all(f.exists() for f in rest):
        return None
    try:
        with warnings.catch_warnings(), Image.open(folder / f"{name}.overlay.png") as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return str(picture.info.get(_STAMP, "")) or None
    except (OSError, Image.DecompressionBombError):
        return None


def labels_file(folder: Path, name: str) -> Path | None:
    """The label map that was written for an image, if there is one."""
    return next((f for f in (folder / f"{name}.labels{end}" for end in (".png", ".tif")) if f.exists()), None)


def write_labels(labels: Labels, folder: Path, name: str) -> Path:
    """The label map: a 16-bit PNG, or a 32-bit TIFF where there are more than 65,535 nuclei."""
    few = labels.max(initial=0) <= np.iinfo(np.uint16).max
    final = folder / f"{name}.labels{'.png' if few else '.tif'}"
    with whole_file(final) as path:
        Image.fromarray(labels.astype(np.uint16) if few else labels).save(path, format="PNG" if few else "TIFF")
    return final


def table(measurements: Measurements, offset: tuple[int, int] = (0, 0), facts: Facts | None = None) -> str:
    """CSV text, a row for each nucleus in the order of its label.

    Args:
        measurements: What was measured of each nucleus.
        offset: Level-0 (x, y) of the image's first pixel.
        facts: About the whole image, repeated in every row as columns of their names.

    Returns:
        The text, its first line the names of the columns.
    """
    m = measurements
    columns: dict[str, NDArray[Any]] = {"label": np.arange(1, len(m) + 1), "x": m.x + offset[0], "y": m.y + offset[1]}
    columns |= {"area_px": m.area, "area_um2": m.area_um2, "eccentricity": m.eccentricity, "hematoxylin_od": m.hematoxylin}
    if m.dab is not None and m.positive is not None:
        columns |= {"dab_od": m.dab, "positive": m.positive.astype(int)}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*columns, *(facts or {})])
    same = list((facts or {}).values())
    writer.writerows([[_short(v) for v in row] + same for row in zip(*columns.values(), strict=True)])
    return text.getvalue()


def geojson(nuclei: Nuclei, name: str, offset: tuple[int, int] = (0, 0), facts: Facts | None = None) -> Iterator[str]:
    """GeoJSON text of a FeatureCollection of QuPath detections, in pieces.

    Args:
        nuclei: What was found. Outlines are simplified by up to half a pixel, in level-0 pixels;
            DAB-positive and negative nuclei have classes.
        name: Makes the ids of nuclei, so that they stay the same when a command is run again.
        offset: Level-0 (x, y) of the image's first pixel.
        facts: About the whole image, kept as the member "pathencoder" beside the features.

    Yields:
        Pieces of the text, one a nucleus, so that it need not be in memory as a whole.
    """
    about = f'"pathencoder":{_compact(facts)},' if facts else ""
    yield f'{{"type":"FeatureCollection",{about}"features":['
    outlines = contours(nuclei.labels, _TOLERANCE)
    for comma, (label, ring) in zip(itertools.chain([""], itertools.repeat(",\n")), outlines, strict=False):
        yield comma + _feature(nuclei, name, label, ring, offset)
    yield "]}\n"


def overlay(nuclei: Nuclei, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with every nucleus outlined: yellow, or red (positive) and blue (negative) for IHC."""
    ndimage, *_ = tools()
    picture, colours = image.copy(), _colours(nuclei.table)
    for top in range(0, len(picture), _STRIP):
        above = min(top, 1)
        around = nuclei.labels[top - above : top + _STRIP + 1]
        inner = (ndimage.grey_erosion(around, 3) == around)[above:][:_STRIP]
        labels = nuclei.labels[top : top + _STRIP]
        line = (labels > 0) & ~inner
        picture[top : top + _STRIP][line] = colours[labels[line] - 1]
    return picture


def _colours(table: Measurements) -> NDArray[np.uint8]:
    if table.positive is None:
        return np.tile(np.array(NUCLEUS, np.uint8), (len(table), 1))
    return np.where(table.positive[:, None], np.array(POSITIVE, np.uint8), np.array(NEGATIVE, np.uint8))


def _feature(nuclei: Nuclei, name: str, label: int, ring: NDArray[np.float64], offset: tuple[int, int]) -> str:
    properties: dict[str, Any] = {"objectType": "detection", "measurements": _measurements(nuclei.table, label - 1)}
    if nuclei.table.positive is not None:
        positive = bool(nuclei.table.positive[label - 1])
        properties["classification"] = {"name": "Positive" if positive else "Negative", "color": list(POSITIVE if positive else NEGATIVE)}
    identity = uuid.uuid5(_SPACE, f"{printable(name)}/{label}")
    place = f'"geometry":{{"type":"Polygon","coordinates":[{_points(ring, offset)}]}}'
    return f'{{"type":"Feature","id":"{identity}",{place},"properties":{_compact(properties)}}}'


def _points(ring: NDArray[np.float64], offset: tuple[int, int]) -> str:
    """Points as JSON; outlines run through halves and wholes of pixels, which one decimal holds exactly."""
    halves = np.rint(2 * (ring + offset)).astype(np.int64).tolist()
    return "[" + ",".join(f"[{_half(x)},{_half(y)}]" for x, y in halves) + "]"


def _half(count: int) -> str:
    return f"{count / 2:.1f}" if count & 1 else str(count >> 1)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _measurements(table: Measurements, row: int) -> dict[str, float]:
    named = {
        "Nucleus: Area px^2": table.area,
        "Nucleus: Area µm^2": table.area_um2,
        "Nucleus: Eccentricity": table.eccentricity,
        "Nucleus: Hematoxylin OD mean": table.hematoxylin,
        "Nucleus: DAB OD mean": table.dab,
    }
    return {key: _short(column[row]) for key, column in named.items() if column is not None}


def _short(value: Any) -> Any:
    return int(value) if float(value).is_integer() else round(float(value), 4)
