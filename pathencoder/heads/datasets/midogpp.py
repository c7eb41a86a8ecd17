"""MIDOG++: mitotic figures of seven tumours."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.data.marks import Marks
from pathencoder.heads.datasets.pictures import picture, picture_set
from pathencoder.heads.datasets.places import listed, required, within
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.tables import read_table
from pathencoder.walk import printable

_CLASSES = {1: "mitotic figure", 2: "look-alike"}
_CELLS = {"mitotic figure": 11_937, "look-alike": 14_351}
_FILES = ("MIDOG++.json", "MIDOGpp.json")
# um/px by the beginning of the scanner's name in datasets_xvalidation.csv
_MPP = {"hama": 0.23, "aperio": 0.25, "3d": 0.25, "leica": 0.26}


@dataclass(frozen=True)
class Boxes:
    """The cells of one image: the middles of boxes [N, 4] of two corners.

    Attributes:
        name: What messages call them.
        corners: Left, top, right and bottom.
        kinds: The class of each.
    """

    name: str
    corners: NDArray[np.float64]
    kinds: tuple[str, ...]

    def read(self, mpp: float) -> Marks:
        """The cells, with their class."""
        middles = (self.corners[:, :2] + self.corners[:, 2:]) / 2
        return Marks(points=middles, names=self.kinds)


def read(root: Path, public: PublicSet) -> Contents:
    """Read the images that are there: the whole set is 65 GB."""
    file = next(path for name in _FILES for path in within(root, name))
    content = _content(file)
    boxes = _boxes(content, file)
    folder = next((f for f in (root / "images", file.parent / "images") if f.is_dir()), root)
    rows = [(row, folder / str(row["file_name"])) for row in content["images"]]
    there = [(row, image) for row, image in rows if image.is_file()]
    required([] if there else [folder / "001.tiff"], root, public)
    notes = []
    if len(there) < len(rows):
        missing = [str(row["file_name"]) for row, image in rows if not image.is_file()]
        notes.append(f"{len(missing)} images are not there and left out: {listed(missing)}")
    about = _about(root, notes)
    pictures = [
        picture(
            image,
            boxes.get(row["id"], Boxes(image.name, np.zeros((0, 4)), ())),
            about.get(int(row["id"]), {}).get("dataset", "train"),
            public,
            group=image.stem,
            mpp=_mpp(about.get(int(row["id"]), {})),
        )
        for row, image in there
    ]
    cells = Counter(kind for one in boxes.values() for kind in one.kinds)
    found = {"annotations": {"images": len(rows), **cells}}
    data = picture_set(pictures, "points", notes)
    return Contents(data, found, {"annotations": {"images": 503, **_CELLS}})


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{printable(file)} cannot be read ({error}): download it again"
        ) from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise ConfigError(f"{printable(file)} has no images and annotations: download it again")
    return content


def _boxes(content: Mapping[str, Any], file: Path) -> dict[int, Boxes]:
    """The cells of each image, by its number."""
    of: dict[int, list[tuple[Sequence[float], str]]] = defaultdict(list)
    for row in content["annotations"]:
        left, top, right, bottom = row["bbox"]
        kind = _CLASSES.get(row["category_id"])
        if kind is None or right <= left or bottom <= top:
            raise ConfigError(
                f"{printable(file)}: annotation {row.get('id')} has the class"
                f" {row['category_id']} and the box {row['bbox']}; published are the classes 1 and"
                " 2, and boxes of two corners (left, top, right, bottom), not of COCO's form"
            )
        of[row["image_id"]].append(((left, top, right, bottom), kind))
    return {
        number: Boxes(
            f"{printable(file.name)} image {number}",
            np.array([corners for corners, _ in rows], np.float64),
            tuple(kind for _, kind in rows),
        )
        for number, rows in of.items()
    }


def _about(root: Path, notes: list[str]) -> dict[int, dict[str, str]]:
    """Part and scanner by the number of an image; {} without datasets_xvalidation.csv."""
    table = next(within(root, "datasets_xvalidation.csv"), None)
    if table is None:
        notes.append("datasets_xvalidation.csv is not there: all images are of the part train")
        return {}
    rows = read_table(table, ["Slide", "Dataset", "Scanner"]).rows
    return {int(row["slide"]): row for row in rows}


def _mpp(row: Mapping[str, str]) -> float | None:
    scanner = row.get("scanner", "").casefold()
    return next((mpp for name, mpp in _MPP.items() if scanner.startswith(name)), None)


SET = PublicSet(
    name="midog++",
    title="MIDOG++",
    task="detect",
    classes={
        "mitotic figure": "mitotic figure, by the majority of three experts",
        "look-alike": "cell that looks like one (hard negative)",
    },
    size="503 of about 7000 x 5000 px",
    layout=(
        "databases/MIDOG++.json",
        "images/001.tiff to 553.tiff; any number of them",
        "datasets_xvalidation.csv, for parts and scanners",
    ),
    marks=_FILES + tuple(f"databases/{name}" for name in _FILES),
    parts="train and test, from the column Dataset of datasets_xvalidation.csv",
    groups="cases: each image is of another patient or animal",
    licence="CC BY 4.0 on figshare (the JSON file says CC0)",
    commercial=True,
    homepage="https://github.com/DeepMicroscopy/MIDOGpp",
    citation="Aubreville et al. 2023, doi:10.1038/s41597-023-02327-4",
    mpp=0.25,
    stain="he",
    read=read,
    notes=(
        "MIDOG++: boxes of 50 px are the same size for every cell: only their middle is used. They"
        " are stored as two corners, not as COCO's left, top, width and height",
        "MIDOG++: tumours, species and scanners go together: report by tumour, or leave one out",
        "MIDOG++: the train images of MIDOG 2021 and 2022 are part of it, and AMi-Br is partly cut"
        " from them",
    ),
)
