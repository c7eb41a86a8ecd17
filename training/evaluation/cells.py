"""Tiles around annotated cells: a set of points becomes a set of tiles with a labels.csv.

Tiles are 32 um wide at the set's scale; cells nearer to the border than half a tile are left out,
and so are cells without a class. At most 400 a class and split, evenly over the images. A group is
the slide where it is known, else the image. A set without a test part, or with a group in two
parts, is read by folds.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.files import whole_folder
from pathencoder.images import open_image
from pathencoder.tables import read_table
from training.evaluation.annotations import read_points

_WIDTH_UM = 32
_A_CLASS = 400  # cells of each class and split
_NO_CLASS = ("", "unclassified", "other", "others")
_LEFT_OUT = "validation"
_Cell = tuple[str, int, int]  # class, x, y


@dataclass(frozen=True)
class _Row:
    """A line of labels.csv."""

    file: str
    label: str
    group: str
    split: str
    mpp: float


def cut_cells(root: Path, mpp: float, out: Path) -> Path:
    """Cut the tiles of a set, whole or not at all.

    Args:
        root: Folder with meta.csv and a folder a split, in it images with NAME.points.csv.
        mpp: The scale at which tiles are cut, um/px.
        out: The folder to write; an existing one is replaced.

    Returns:
        Its labels.csv.

    Raises:
        ConfigError: The table or an image of the set is missing.
        StoreError: The folder cannot be written.
    """
    table = read_table(root / "meta.csv", ("file", "slide_id"), last_is_text=True)
    slides = {Path(row["file"]).stem: row["slide_id"] for _, row in table}
    parts = sorted(p.name for p in root.iterdir() if p.is_dir())
    draw = random.Random(0)  # the tiles are those of this generator: another gives other sets
    side = round(_WIDTH_UM / mpp)
    with whole_folder(out) as folder:
        rows = []
        for part in parts:
            if part != _LEFT_OUT:
                split = part if len(parts) > 1 and part in ("train", "val", "test") else "folds"
                for image, cells in _chosen(root / part, side, draw):
                    rows += _cut(folder, image, cells, side, split, slides, mpp)
        _write_labels(folder / "labels.csv", _by_folds(rows))
    return out / "labels.csv"


def _chosen(folder: Path, side: int, draw: random.Random) -> list[tuple[Path, list[_Cell]]]:
    """The cells of a split by image: each class in turn takes one cell of every image."""
    cells: dict[str, dict[Path, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for table in sorted(folder.glob("*.points.csv")):
        image = _image_of(table)
        with Image.open(image) as opened:
            width, height = opened.size
        points, names = read_points(image)
        for (a, b), name in zip(points.tolist(), names, strict=True):
            x, y, half = round(a), round(b), side // 2
            inside = half <= x <= width - half and half <= y <= height - half
            if name not in _NO_CLASS and inside:
                cells[name][image].append((x, y))
    chosen: dict[Path, list[_Cell]] = defaultdict(list)
    for name, images in cells.items():
        for points_of in images.values():
            draw.shuffle(points_of)
        count = 0
        while count < _A_CLASS and any(images.values()):
            for image in sorted(images):
                if images[image] and count < _A_CLASS:
                    chosen[image].append((name, *images[image].pop()))
                    count += 1
    return sorted(chosen.items())


def _image_of(table: Path) -> Path:
    name = table.name.removesuffix(".points.csv")
    found = [
        p for p in sorted(table.parent.glob(f"{name}.*")) if p.suffix in (".webp", ".png", ".tif")
    ]
    found = [p for p in found if p.stem == name]
    if not found:
        raise ConfigError(f"{table}: there is no image {name}.webp, .png or .tif beside it")
    return found[0]


def _cut(
    folder: Path,
    image: Path,
    cells: Sequence[_Cell],
    side: int,
    split: str,
    slides: dict[str, str],
    mpp: float,
) -> list[_Row]:
    pixels, rows = Image.fromarray(open_image(image)), []
    group = slides.get(image.stem, "unknown")
    for label, x, y in cells:
        file = Path(split) / label / f"{image.stem}_{x}_{y}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        left, top = x - side // 2, y - side // 2
        pixels.crop((left, top, left + side, top + side)).save(folder / file)
        known = image.stem if group == "unknown" else group
        rows.append(_Row(file.as_posix(), label, known, split, mpp))
    return rows


def _by_folds(rows: Sequence[_Row]) -> list[_Row]:
    """The rows, all in folds where a group is in two parts."""
    parts = defaultdict(set)
    for row in rows:
        parts[row.group].add(row.split)
    if all(len(found) == 1 for found in parts.values()):
        return list(rows)
    return [_Row(row.file, row.label, row.group, "folds", row.mpp) for row in rows]


def _write_labels(file: Path, rows: Sequence[_Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "group", "split", "mpp"])
        writer.writerows(astuple(row) for row in rows)
