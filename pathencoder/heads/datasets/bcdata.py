"""BCData: tumour cells in Ki-67 immunohistochemistry of the breast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.data.listing import Found
from pathencoder.heads.data.marks import Marks
from pathencoder.heads.datasets import hdf5
from pathencoder.heads.datasets.pictures import picture, picture_set
from pathencoder.heads.datasets.places import files_of, required
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.walk import printable

_CLASSES = ("positive", "negative")
_PARTS = ("train", "validation", "test")
_PUBLISHED = {"train": {"images": 803}, "val": {"images": 133}, "test": {"images": 402}}
_CELLS = {"positive": 62_623, "negative": 118_451}


@dataclass(frozen=True)
class Coordinates:
    """A file of positive and one of negative cells, x and y each.

    Attributes:
        files: In the order of the classes.
    """

    files: tuple[Path, Path]

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.files[0])

    def read(self, mpp: float) -> Marks:
        """The cells, with their class."""
        found = []
        for file in self.files:
            try:
                found.append(np.asarray(hdf5.read(file, "coordinates"), np.float64).reshape(-1, 2))
            except (ConfigError, ValueError) as error:
                raise ImageError(f"{printable(file)}: {error}") from error
        names = [name for name, points in zip(_CLASSES, found, strict=True) for _ in points]
        return Marks(points=np.concatenate(found), names=names)


def read(root: Path, public: PublicSet) -> Contents:
    """Read the parts whose folders are there."""
    pictures: list[Found] = []
    counts: dict[str, dict[str, int]] = {}
    cells = dict.fromkeys(_CLASSES, 0)
    for part in _PARTS:
        images = files_of(root / "images" / part, (".png",)) if _there(root, part) else []
        if not images:
            continue
        counts[split_name(part)] = {"images": len(images)}
        for image in images:
            one, other = (_annotation(root, part, name, image) for name in _CLASSES)
            required([one, other], root, public)
            for name, file in zip(_CLASSES, (one, other), strict=True):
                cells[name] += hdf5.shape_of(file, "coordinates")[0]
            pictures.append(picture(image, Coordinates((one, other)), split_name(part), public))
    published: dict[str, dict[str, int]] = dict(_PUBLISHED)
    if set(counts) == set(_PUBLISHED):
        counts["all parts"], published["all parts"] = cells, _CELLS
    return Contents(picture_set(pictures, "points"), counts, published)


def _there(root: Path, part: str) -> bool:
    return (root / "images" / part).is_dir()


def _annotation(root: Path, part: str, name: str, image: Path) -> Path:
    return root / "annotations" / part / name / f"{image.stem}.h5"


SET = PublicSet(
    name="bcdata",
    title="BCData",
    task="detect",
    classes={
        "positive": "tumour cell with a brown nucleus",
        "negative": "tumour cell with a blue nucleus",
    },
    size="1,338 of 640 px",
    layout=(
        "BCData/images/{train,validation,test}/*.png",
        "BCData/annotations/{train,validation,test}/{positive,negative}/*.h5",
    ),
    marks=("images/train", "images/validation", "images/test"),
    parts="train, val (validation in the folder's names) and test",
    groups="none: patients were not published",
    licence="research only (terms of the web page)",
    commercial=False,
    homepage="https://sites.google.com/view/bcdataset",
    citation="Huang et al. 2020, doi:10.1007/978-3-030-59722-1_28",
    mpp=0.25,
    stain="ihc",
    read=read,
    notes=(
        "BCData: tumour cells alone are marked; a detector that finds lymphocytes or stroma counts"
        " them as false",
        "BCData: published figures shrink images to 512 px and match within 10 px there, which is"
        " 12.5 px here",
    ),
)
