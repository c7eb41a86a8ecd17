"""MHIST: colorectal polyps, hyperplastic or sessile serrated."""

from __future__ import annotations

from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.datasets import images
from pathencoder.heads.datasets.counts import by_class
from pathencoder.heads.datasets.places import required
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.tables import read_table
from pathencoder.walk import printable

_CLASSES = {"HP": "hyperplastic polyp", "SSA": "sessile serrated adenoma"}
_COLUMNS = ("image name", "majority vote label", "partition")
_PUBLISHED = {"train": {"HP": 1_545, "SSA": 630}, "test": {"HP": 617, "SSA": 360}}


def read(root: Path, public: PublicSet) -> Contents:
    """Read annotations.csv and the folder images."""
    table = read_table(root / "annotations.csv", _COLUMNS)
    name, label, part = _COLUMNS
    for where, row in table:
        if row[label] not in _CLASSES:
            raise ConfigError(f"{printable(where)}: the label {row[label]!r} is neither HP nor SSA")
    rows = [
        images.Row(root / "images" / row[name], row[label], split_name(row[part]))
        for row in table.rows
    ]
    required([row.image for row in rows], root, public)
    data = images.dataset(rows)
    return Contents(data, by_class(data), _PUBLISHED)


SET = PublicSet(
    name="mhist",
    title="MHIST",
    task="classify",
    classes=_CLASSES,
    size="3,152 of 224 px",
    layout=("annotations.csv", "images/MHIST_*.png (unpacked from images.zip)"),
    marks=("annotations.csv",),
    parts="train and test, from the column Partition",
    groups="none: patients were not published",
    licence="Dataset Research Use Agreement (accepted on request; no redistribution)",
    commercial=False,
    homepage="https://bmirds.github.io/MHIST/",
    citation="Wei et al. 2021, arXiv:2101.12355",
    mpp=2.0,
    stain="he",
    read=read,
    notes=(
        "MHIST: labels are the majority of seven pathologists; for one image in six the votes were"
        " four to three",
        "MHIST: images are 40x scans reduced to 5x (about 2 um/px), coarser than most encoders"
        " were trained on",
    ),
)
