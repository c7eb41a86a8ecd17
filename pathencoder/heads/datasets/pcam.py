"""PatchCamelyon: lymph nodes, with or without metastasis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.datasets import hdf5
from pathencoder.heads.datasets.counts import by_class
from pathencoder.heads.datasets.places import required
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.images import Item
from pathencoder.tables import read_table
from pathencoder.walk import printable

_NAME = "camelyonpatch_level_2_split_{}_{}"
_PARTS = {"train": "train", "valid": "val", "test": "test"}  # in the files' names -> here
_LABELS = ("normal", "tumour")
_PUBLISHED = {
    "train": {"normal": 131_072, "tumour": 131_072},
    "val": {"normal": 16_399, "tumour": 16_369},
    "test": {"normal": 16_391, "tumour": 16_377},
}


def read(root: Path, public: PublicSet) -> Contents:
    """Read the parts whose files are there."""
    there = [part for part in _PARTS if next(root.glob(_NAME.format(part, "*")), None)]
    images: list[Item] = []
    labels: list[str] = []
    splits: list[str] = []
    slides: list[str] = []
    for part in there:
        x, y = (root / (_NAME.format(part, kind) + ".h5") for kind in "xy")
        required([x, y], root, public)
        found, truth = hdf5.images(x, "x"), hdf5.read(y, "y").reshape(-1)
        _check(truth, len(found), y, x)
        images += found
        labels += [_LABELS[int(value)] for value in truth]
        splits += [_PARTS[part]] * len(found)
        slides += _slides(root / (_NAME.format(part, "meta") + ".csv"), len(found))
    grouped = len(slides) == len(images)
    data = Dataset(
        images=tuple(images),
        labels=tuple(labels),
        groups=tuple(slides) if grouped else None,
        splits=tuple(splits),
        where=tuple(image.where for image in images),
        notes=() if grouped else ("the *_meta.csv files are not all there: no slides are known",),
    )
    return Contents(data, by_class(data), _PUBLISHED)


def _check(truth: np.ndarray, images: int, y: Path, x: Path) -> None:
    if len(truth) != images:
        raise ConfigError(
            f"{printable(y)} holds {len(truth):,} labels for the {images:,} images of"
            f" {printable(x.name)}: download both again"
        )
    if wrong := sorted(set(np.unique(truth).tolist()) - {0, 1}):
        raise ConfigError(f"{printable(y)} holds the labels {wrong}, not 0 and 1 alone")


def _slides(meta: Path, images: int) -> list[str]:
    """The slide of each image; [] where the table is not there."""
    if not meta.is_file():
        return []
    table = read_table(meta, ["wsi"])
    if len(table.rows) != images:
        raise ConfigError(
            f"{printable(meta)} has {len(table.rows):,} rows for {images:,} images: download it"
            " again, or remove it to read the images without their slides"
        )
    return [row["wsi"] for row in table.rows]


SET = PublicSet(
    name="pcam",
    title="PatchCamelyon (PCam)",
    task="classify",
    classes={
        "normal": "no tumour in the centre of 32 x 32 px",
        "tumour": "at least one pixel of tumour in the centre of 32 x 32 px",
    },
    size="327,680 of 96 px",
    layout=(
        "camelyonpatch_level_2_split_train_x.h5 and _train_y.h5 (unpacked from .h5.gz)",
        "camelyonpatch_level_2_split_valid_x.h5 and _valid_y.h5",
        "camelyonpatch_level_2_split_test_x.h5 and _test_y.h5",
        "camelyonpatch_level_2_split_{train,valid,test}_meta.csv, for the slides",
    ),
    marks=("camelyonpatch_level_2_split_*_?.h5",),
    parts="train, val (valid in the files' names), test",
    groups="slides, from the column wsi of the *_meta.csv files; without these files none",
    licence="CC0 1.0",
    commercial=True,
    homepage="https://github.com/basveeling/pcam",
    citation="Veeling et al. 2018, arXiv:1806.03962; Bejnordi et al. 2017,"
    " doi:10.1001/jama.2017.14585",
    mpp=0.972,
    stain="he",
    read=read,
    notes=(
        "PCam: only the centre of 32 px decides the label; tumour in the outer part does not count",
        "PCam: negatives were mined and both classes are equally frequent: scores do not hold for"
        " the tissue of a slide",
        "PCam: slides are of two centres, and some images occur more than once within a part",
    ),
)
