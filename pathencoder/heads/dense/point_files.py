"""Files of the points of one image: GeoJSON for QuPath, and a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError
from pathencoder.files import whole_file
from pathencoder.walk import printable

# QuPath's own colours of classes; malignant regions have that of its class Tumor
_NAMED = {
    "positive": (250, 62, 62),
    "negative": (112, 112, 225),
    **dict.fromkeys(("tumor", "tumour", "malignant", "neoplastic"), (200, 0, 0)),
    "stroma": (150, 200, 150),
    "necrosis": (50, 50, 50),
}
# of different hue, and visible on purple and pink tissue
_COLOURS = (
    (250, 220, 40),
    (0, 200, 255),
    (40, 230, 60),
    (255, 120, 0),
    (255, 255, 255),
    (0, 60, 255),
    (230, 0, 120),
)
_PLAIN = (250, 220, 40)
_DISK_UM = 1.0  # radius of a cell's disk in the overlay
_SPACE = uuid.UUID("1f0c2c44-6f52-4a39-9d5e-0d2d3a6e7f10")  # namespace of the ids of points


@dataclass(frozen=True)
class Place:
    """Where an image lies in its slide, which is where the files say that its points are.

    Attributes:
        offset: Level-0 (x, y) of the outer edge of the first pixel of the image.
        scale: Level-0 pixels for a pixel of the image: its um/px over the slide's.
    """

    offset: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    @classmethod
    def at(cls, offset: tuple[float, float], mpp: float, level0_mpp: float) -> Place:
        """The place of an image of `mpp` um/px, in a slide of `level0_mpp`."""
        return cls(offset, mpp / level0_mpp)

    def level0(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the image, the centre of its first pixel at 0, in level-0 pixels.

        There 0 is the outer edge of the first pixel, as QuPath has it.

        Args:
            points: x and y in pixels of the image [N, 2 or more].

        Returns:
            [N, 2].
        """
        found: NDArray[np.float64] = (np.asarray(points, np.float64)[:, :2] + 0.5) * self.scale
        return found + self.offset


@dataclass(frozen=True)
class Found:
    """The cells that were found in an image.

    Attributes:
        points: x, y and height of the peak [N, 3], in pixels of the image.
        labels: The class of each. None: the head has no classes.
        probabilities: [N, C]. None: the head has no classes.
        classes: The names of the columns of `probabilities`.
    """

    points: NDArray[np.floating]
    labels: Sequence[str] | None = None
    probabilities: NDArray[np.floating] | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError where the parts differ in length."""
        for part in (self.labels, self.probabilities):
            if part is not None and len(part) != len(self.points):
                raise ConfigError(f"{len(self.points)} points, but {len(part)} of their classes")


def write_points(
    found: Found,
    folder: Path,
    name: str,
    *,
    place: Place | None = None,
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `<name>.geojson` and `<name>.csv`.

    Args:
        found: The cells.
        folder: An existing folder, with the folders in `name`.
        name: Of the files; may begin with folders.
        place: Of the image in its slide. None: it is the slide.
        facts: The source and the settings, as JSON values, kept in the GeoJSON.

    Returns:
        The two paths, the GeoJSON first.

    Raises:
        StoreError: A file cannot be written.
    """
    where = place or Place()
    files = [folder / f"{name}{end}" for end in (".geojson", ".csv")]
    with whole_file(files[0]) as path, path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(geojson(found, name, where, facts))
    with whole_file(files[1]) as path:
        path.write_text(table(found, where), encoding="utf-8", newline="")
    return files


def geojson(
    found: Found, name: str, place: Place | None = None, facts: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """GeoJSON text of a FeatureCollection of QuPath detections that are points, in pieces.

    Args:
        found: The cells; their classes are classifications, and the height of the peak and the
            probability of the class are measurements.
        name: The ids of the cells are derived from it, so that a repeated command gives the same
            ids.
        place: Of the image in its slide.
        facts: Values that describe the image, kept as the member "pathencoder".

    Yields:
        Parts of the text, one for each cell.
    """
    about = f'"pathencoder":{_compact(dict(facts))},' if facts else ""
    yield f'{{"type":"FeatureCollection",{about}"features":[\n'
    at = (place or Place()).level0(found.points)
    for i in range(len(at)):
        properties: dict[str, Any] = {
            "objectType": "detection",
            "measurements": {"Peak height": round(float(found.points[i][2]), 4)},
        }
        if found.labels is not None:
            label = found.labels[i]
            properties["classification"] = {"name": label, "color": colour(label, found.classes)}
        if found.probabilities is not None:
            best = round(float(found.probabilities[i].max()), 4)
            properties["measurements"]["Class probability"] = best
        feature = {
            "type": "Feature",
            "id": str(uuid.uuid5(_SPACE, f"{printable(name)}/{i + 1}")),
            "geometry": {"type": "Point", "coordinates": [round(float(v), 2) for v in at[i]]},
            "properties": properties,
        }
        yield (",\n" if i else "") + _compact(feature)
    yield "]}\n"


def table(found: Found, place: Place | None = None) -> str:
    """CSV text, a row for each cell.

    Args:
        found: The cells.
        place: Of the image in its slide.

    Returns:
        The columns x and y (level-0 pixels, 0 is the outer edge of the first pixel), height, and
        class and the probability of every class where there are classes.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    named = [] if found.labels is None else ["class"]
    columns = [f"p_{c}" for c in found.classes] if found.probabilities is not None else []
    writer.writerow(["x", "y", "height", *named, *columns])
    at = (place or Place()).level0(found.points)
    for i in range(len(at)):
        row: list[Any] = [f"{at[i, 0]:.2f}", f"{at[i, 1]:.2f}", f"{found.points[i][2]:.4f}"]
        if found.labels is not None:
            row.append(found.labels[i])
        if found.probabilities is not None:
            row += [f"{p:.4f}" for p in found.probabilities[i]]
        writer.writerow(row)
    return text.getvalue()


def overlay(found: Found, image: Pixels, mpp: float) -> Pixels:
    """The image with a disk at every cell, in the colour of its class; yellow without classes.

    Args:
        found: The cells.
        image: uint8 RGB [H, W, 3].
        mpp: Its micrometres per pixel.

    Returns:
        uint8 RGB [H, W, 3].
    """
    picture = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(picture)
    radius = min(max(2.0, _DISK_UM / mpp), 20.0)
    for i, (x, y) in enumerate(np.asarray(found.points)[:, :2]):
        shade = _PLAIN if found.labels is None else colour(found.labels[i], found.classes)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=shade, outline=(0, 0, 0))
    return np.asarray(picture)


def colour(label: str, classes: Sequence[str]) -> tuple[int, int, int]:
    """The RGB colour of a class in files and overlays."""
    if label.casefold() in _NAMED:
        return _NAMED[label.casefold()]
    if label in classes:
        return _COLOURS[list(classes).index(label) % len(_COLOURS)]
    return _COLOURS[hashlib.sha256(label.encode()).digest()[0] % len(_COLOURS)]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
