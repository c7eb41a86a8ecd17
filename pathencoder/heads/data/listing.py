"""Images with the places of their labels, as a form of data lists them before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError
from pathencoder.heads.data import label_maps
from pathencoder.heads.data.coco import CocoImage
from pathencoder.heads.data.label_maps import LabelMap
from pathencoder.heads.data.marks import Marks, Source
from pathencoder.heads.data.outlines import GeoJson, ImageScope
from pathencoder.heads.data.point_tables import PointRows, PointTable
from pathencoder.heads.data.truth import Kind
from pathencoder.images import Item, open_image
from pathencoder.walk import printable

GEOJSON = frozenset({".geojson", ".json"})
VECTORS = GEOJSON | {".xml", ".csv"}
LABEL_SUFFIXES = label_maps.SUFFIXES | VECTORS
# which file of several is read, by what the task learns
_PREFERRED: dict[Kind, tuple[frozenset[str], ...]] = {
    "objects": (label_maps.SUFFIXES, GEOJSON, frozenset({".xml"})),
    "classes": (label_maps.SUFFIXES, GEOJSON, frozenset({".xml"})),
    "points": (frozenset({".csv"}), GEOJSON, frozenset({".xml"}), label_maps.SUFFIXES),
}


@dataclass(frozen=True)
class Found:
    """An image and where its labels are.

    Attributes:
        image: The file.
        labels: Its labels.
        where: What messages call it.
        split: Its part, in any spelling; "" where none is given.
        group: Patient, slide or case; None where none is given.
        mpp: Its scale, as text; "" where none is given.
        stain: As text; "" where none is given.
        item: The image, where the file holds several.
    """

    image: Path
    labels: Source
    where: str
    split: str = ""
    group: str | None = None
    mpp: str = ""
    stain: str = ""
    item: Item | None = None

    def pixels(self) -> Pixels:
        """The image, uint8 [H, W, 3].

        Raises:
            ImageError: It cannot be read.
        """
        return open_image(self.image) if self.item is None else self.item.load()


@dataclass(frozen=True)
class Listing:
    """All images of a data set.

    Attributes:
        rows: In order.
        notes: What was assumed or left out, as sentences.
        problems: What is wrong with the list itself, as sentences.
    """

    rows: Sequence[Found]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoLabels:
    """The place of labels that there are none in.

    Attributes:
        name: What messages call it.
        reason: What is wrong and what to do.
    """

    name: str
    reason: str

    def read(self, mpp: float) -> Marks:
        """Raises ImageError with the reason."""
        raise ImageError(self.reason)


def source_of(file: Path, kind: Kind) -> Source:
    """The labels in a file, by its suffix."""
    suffix = file.suffix.lower()
    if suffix in label_maps.SUFFIXES:
        return LabelMap(file)
    if suffix in GEOJSON:
        return GeoJson(file, regions=kind == "classes")
    if suffix == ".xml":
        return ImageScope(file)
    if suffix == ".csv":
        return PointTable(file)
    name = printable(file)
    return NoLabels(
        name,
        f"{name}: no labels are read from {suffix or 'such'} files, but from label maps (PNG, TIFF,"
        " .npy, .mat), GeoJSON, XML of ImageScope and CSV of points",
    )


def for_kind(source: Source, kind: Kind) -> Source:
    """The same labels as another kind of task reads them."""
    regions = kind == "classes"
    if isinstance(source, GeoJson) and source.regions != regions:
        return replace(source, regions=regions, only="")
    return replace(source, regions=regions) if isinstance(source, CocoImage) else source


def counting(source: Source, only: str) -> Source:
    """The same labels, of QuPath's objects the detections or the annotations alone."""
    sources = GeoJson | PointTable | PointRows
    return replace(source, only=only) if isinstance(source, sources) else source


def file_of(source: Source) -> Path | None:
    """The file of labels of one image alone; None where a file holds those of several."""
    files = LabelMap | GeoJson | ImageScope | PointTable
    return source.path if isinstance(source, files) else None


def preferred(files: Sequence[Path], kind: Kind) -> Path | None:
    """The file of labels that a task reads, of several of one image; None if none suits it."""
    for suffixes in _PREFERRED[kind]:
        for file in files:
            if file.suffix.lower() in suffixes:
                return file
    return None
