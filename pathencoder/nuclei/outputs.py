"""Files of one image's nuclei: label map, GeoJSON for QuPath, table, overlay picture. Each appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.nuclei.instances import Labels, tools
from pathencoder.nuclei.measure import Measurements
from pathencoder.nuclei.segment import Nuclei
from pathencoder.slides.files import whole_file

POSITIVE, NEGATIVE, NUCLEUS = (200, 60, 40), (60, 90, 210), (250, 220, 40)  # outline colours, RGB
_SPACE = uuid.UUID("6d1f8a52-93a4-4c3e-9c7b-2f6f0f6f8e11")  # so that one nucleus keeps its id when a command is run again


def write_all(nuclei: Nuclei, image: NDArray[np.uint8], folder: Path, name: str, *, offset: tuple[int, int] = (0, 0)) -> list[Path]:
    """All four files `<name>.labels.png` (or .tif), `.geojson`, `.csv`, `.overlay.png` in an existing folder; returns their paths.

    `offset`: level-0 (x, y) of the image's first pixel, for a region of a slide. Raises StoreError.
    """
    written = [write_labels(nuclei.labels, folder, name)]
    for suffix, content in ((".geojson", geojson(nuclei, name, offset)), (".csv", table(nuclei.table, offset))):
        with whole_file(folder / f"{name}{suffix}") as path:
            path.write_text(content, encoding="utf-8", newline="")
        written.append(folder / f"{name}{suffix}")
    with whole_file(folder / f"{name}.overlay.png") as path:
        Image.fromarray(overlay(nuclei, image)).save(path, format="PNG")
    return [*written, folder / f"{name}.overlay.png"]


def write_labels(labels: Labels, folder: Path, name: str) -> Path:
    """The label map: a 16-bit PNG, or a 32-bit TIFF where there are more than 65,535 nuclei."""
    few = labels.max(initial=0) <= np.iinfo(np.uint16).max
    final = folder / f"{name}.labels{'.png' if few else '.tif'}"
    with whole_file(final) as path:
        Image.fromarray(labels.astype(np.uint16) if few else labels).save(path, format="PNG" if few else "TIFF")
    return final


def table(measurements: Measurements, offset: tuple[int, int] = (0, 0)) -> str:
    """CSV text, a row for each nucleus in the order of its label."""
    m = measurements
    columns: dict[str, NDArray[Any]] = {"label": np.arange(1, len(m) + 1), "x": m.x + offset[0], "y": m.y + offset[1]}
    columns |= {"area_px": m.area, "area_um2": m.area_um2, "eccentricity": m.eccentricity, "hematoxylin_od": m.hematoxylin}
    if m.dab is not None and m.positive is not None:
        columns |= {"dab_od": m.dab, "positive": m.positive.astype(int)}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[_short(v) for v in row] for row in zip(*columns.values(), strict=True)])
    return text.getvalue()


def geojson(nuclei: Nuclei, name: str, offset: tuple[int, int] = (0, 0)) -> str:
    """GeoJSON text of a FeatureCollection of QuPath detections: outlines in level-0 pixels, measurements, classes for IHC."""
    features = [_feature(nuclei, name, label, ring, offset) for label, ring in contours(nuclei.labels)]
    return json.dumps({"type": "FeatureCollection", "features": features})


def contours(labels: Labels) -> list[tuple[int, NDArray[np.float64]]]:
    """(label, closed outline [K, 2] of x, y) of every object, along pixel edges smoothed by half a pixel; of several parts the longest."""
    from skimage.measure import find_contours

    ndimage, *_ = tools()
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            rings = find_contours(np.pad(labels[box] == label, 1).astype(np.float32), 0.5)
            ring = max(rings, key=len) - 0.5 + (box[0].start, box[1].start)
            found.append((label, ring[:, ::-1]))
    return found


def overlay(nuclei: Nuclei, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with every nucleus outlined: yellow, or red (positive) and blue (negative) for IHC."""
    ndimage, *_ = tools()
    labels = nuclei.labels
    line = (labels > 0) & (ndimage.grey_erosion(labels, 3) != labels)
    picture = image.copy()
    picture[line] = _colours(nuclei.table)[labels[line] - 1]
    return picture


def _colours(table: Measurements) -> NDArray[np.uint8]:
    if table.positive is None:
        return np.tile(np.array(NUCLEUS, np.uint8), (len(table), 1))
    return np.where(table.positive[:, None], np.array(POSITIVE, np.uint8), np.array(NEGATIVE, np.uint8))


def _feature(nuclei: Nuclei, name: str, label: int, ring: NDArray[np.float64], offset: tuple[int, int]) -> dict[str, Any]:
    points = np.round(ring + offset, 2).tolist()
    properties: dict[str, Any] = {"objectType": "detection", "measurements": _measurements(nuclei.table, label - 1)}
    if nuclei.table.positive is not None:
        positive = bool(nuclei.table.positive[label - 1])
        properties["classification"] = {"name": "Positive" if positive else "Negative", "color": list(POSITIVE if positive else NEGATIVE)}
    identity = str(uuid.uuid5(_SPACE, f"{name}/{label}"))
    return {"type": "Feature", "id": identity, "geometry": {"type": "Polygon", "coordinates": [points]}, "properties": properties}


def _measurements(table: Measurements, row: int) -> dict[str, float]:
    named = {
        "Nucleus: Area px^2": table.area,
        "Nucleus: Area µm^2": table.area_um2,
        "Nucleus: Eccentricity": table.eccentricity,
        "Nucleus: Hematoxylin OD mean": table.hematoxylin,
        "Nucleus: DAB OD mean": table.dab,
    }
    return {key: round(float(column[row]), 4) for key, column in named.items() if column is not None}


def _short(value: Any) -> Any:
    return int(value) if float(value).is_integer() else round(float(value), 4)
