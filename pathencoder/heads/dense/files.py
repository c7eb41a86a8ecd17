"""Files of what a dense head found: label map, GeoJSON for QuPath, table, overlay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pathencoder.heads.dense import point_files
from pathencoder.heads.dense.point_files import Place, colour
from pathencoder.nuclei import outputs
from pathencoder.nuclei.outputs import Facts, Kind
from pathencoder.slides.rings import rings_of
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.dense.found import Found

Colour = tuple[int, int, int]
KINDS = {
    "glands": Kind("Gland", "annotation", "Gland", line_um=2.0),
    "nuclei": outputs.NUCLEI,
}
BACKGROUND = "background"  # a class that is not drawn
_VEIL = 0.4  # weight of a class's colour over the image


def write(
    found: Found,
    folder: Path,
    name: str,
    *,
    columns: Facts | None = None,
    facts: Facts | None = None,
) -> list[Path]:
    """Write the files of one image.

    Args:
        found: What was found.
        folder: An existing folder, with the folders in `name`.
        name: Of the files; may begin with folders.
        columns: Values that describe the image, repeated in each row of the table.
        facts: The source and the settings, as for `outputs.write_all`.

    Returns:
        The files; the label map first, where there is one.

    Raises:
        StoreError: A file cannot be written.
    """
    if found.kind in KINDS:
        return outputs.write_all(
            found.objects(),
            found.image,
            folder,
            name,
            offset=found.offset,
            columns=columns,
            facts=facts,
            kind=KINDS[found.kind],
        )
    about = facts or {}
    geojson, table, overlay = (folder / f"{name}{e}" for e in (".geojson", ".csv", ".overlay.png"))
    if found.kind == "points":
        cells, place = found.cells(), Place(found.offset)
        outputs.write_geojson(geojson, point_files.geojson(cells, name, place, about))
        outputs.write_table(table, point_files.table(cells, place))
        outputs.write_overlay(overlay, _with_legend(found), about)
        return [geojson, table, overlay]
    assert found.labels is not None
    outputs.write_geojson(geojson, outputs.collection(_areas(found, name), about))
    labels = outputs.write_labels(found.labels, folder, name)
    outputs.write_table(table, _areas_table(found, columns or {}))
    outputs.write_overlay(overlay, _veiled(found), about)
    return [labels, geojson, table, overlay]


def _areas_table(found: Found, columns: Facts) -> str:
    """The pixels of each class, as CSV."""
    assert found.labels is not None
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["class", "number", "area_px", "area_um2", "share", *columns])
    counts = np.bincount(found.labels.ravel(), minlength=len(found.classes)).tolist()
    for number, (name, pixels) in enumerate(zip(found.classes, counts, strict=True)):
        area, share = round(pixels * found.mpp**2, 2), round(pixels / found.labels.size, 6)
        writer.writerow([printable(name), number, pixels, area, share, *columns.values()])
    return text.getvalue()


def _areas(found: Found, name: str) -> Iterator[str]:
    """The areas of each class but the background, along the edges of their pixels."""
    assert found.labels is not None
    x, y = found.offset
    for number, (label, shade) in enumerate(_coloured(found.classes)):
        if label.casefold() == BACKGROUND:
            continue
        for i, rings in enumerate(rings_of(found.labels == number)):
            corners = [[[int(a) + x, int(b) + y] for a, b in ring] for ring in rings]
            geometry = json.dumps({"type": "Polygon", "coordinates": corners})
            classification = {"name": printable(label), "color": shade}
            properties = {"objectType": "annotation", "classification": classification}
            yield outputs.feature(geometry, properties, f"{printable(name)}/{number}/{i}")


def _with_legend(found: Found) -> NDArray[np.uint8]:
    """The image with a disk at every point, in the colour of its class."""
    picture = Image.fromarray(point_files.overlay(found.cells(), found.image, found.mpp))
    _legend(picture, _coloured(found.classes))
    return np.asarray(picture)


def _coloured(classes: Sequence[str]) -> list[tuple[str, Colour]]:
    """Each class with its colour."""
    return [(name, colour(name, classes)) for name in classes]


def _veiled(found: Found) -> NDArray[np.uint8]:
    """The image under the colours of its classes; the background stays as it is."""
    assert found.labels is not None
    pairs = _coloured(found.classes)
    colours = np.array([colour for _, colour in pairs], np.float32)
    drawn = np.array([name.casefold() != BACKGROUND for name, _ in pairs])
    veil = np.where(drawn, np.float32(_VEIL), np.float32(0))[found.labels][..., None]
    mixed = found.image * (1 - veil) + colours[found.labels] * veil
    picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
    _legend(picture, [pair for pair, shown in zip(pairs, drawn, strict=True) if shown])
    return np.asarray(picture)


def _legend(picture: Image.Image, classes: Sequence[tuple[str, Colour]]) -> None:
    """Names and colours of the classes in the upper left corner."""
    size = min(max(10, min(picture.size) // 40), 40)
    if not classes or min(picture.size) < 8 * size:
        return
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    shown = [(printable(name), shade) for name, shade in classes]
    wide = max(draw.textlength(name, font) for name, _ in shown) + 2.5 * size
    draw.rectangle((0, 0, wide, (1.4 * len(shown) + 0.4) * size), fill=(255, 255, 255))
    for i, (name, shade) in enumerate(shown):
        top = (1.4 * i + 0.4) * size
        draw.rectangle((0.4 * size, top, 1.4 * size, top + size), fill=shade)
        draw.text((1.8 * size, top + size / 2), name, fill=(0, 0, 0), font=font, anchor="lm")
