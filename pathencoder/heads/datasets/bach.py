"""BACH (ICIAR 2018), microscopy images: four kinds of breast tissue."""

from __future__ import annotations

from pathlib import Path

from pathencoder.heads.datasets import images
from pathencoder.heads.datasets.counts import by_class
from pathencoder.heads.datasets.public_set import Contents, PublicSet

_CLASSES = {
    "Normal": "normal tissue",
    "Benign": "benign lesion",
    "InSitu": "carcinoma in situ",
    "Invasive": "invasive carcinoma",
}


def read(root: Path, public: PublicSet) -> Contents:
    """Read the labelled images; those of the challenge's test part have no labels."""
    rows, notes = images.class_folders(root / "Photos", "train", _CLASSES, public)
    data = images.dataset(rows, notes)
    return Contents(data, by_class(data), {"train": dict.fromkeys(_CLASSES, 100)})


SET = PublicSet(
    name="bach",
    title="BACH (ICIAR 2018), part A",
    task="classify",
    classes=_CLASSES,
    size="400 of 2048 x 1536 px",
    layout=("ICIAR2018_BACH_Challenge/Photos/{Normal,Benign,InSitu,Invasive}/*.tif",),
    marks=("Photos/Normal", "Photos/Benign", "Photos/InSitu", "Photos/Invasive"),
    parts="all is train: the 100 test images were published without labels and are not read",
    groups="none in the files; the challenge's page lists the patients of some images",
    licence="CC BY-NC-ND 4.0",
    commercial=False,
    homepage="https://zenodo.org/records/3632035",
    citation="Aresta et al. 2019, doi:10.1016/j.media.2019.05.010",
    mpp=0.42,
    stain="he",
    read=read,
    notes=(
        "BACH: patients have several images, often with consecutive numbers: folds over images mix"
        " patients",
        "BACH: images of 2048 x 1536 px are resized whole unless mpp= is given",
    ),
)
