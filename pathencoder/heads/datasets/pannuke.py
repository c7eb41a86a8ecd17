"""PanNuke: nuclei of 19 tissues, in five classes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.listing import Found
from pathencoder.heads.datasets import maps
from pathencoder.heads.datasets.pictures import counted, picture, picture_set
from pathencoder.heads.datasets.places import required, within
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.walk import printable

_CLASSES = {
    "neoplastic": "neoplastic cell",
    "inflammatory": "inflammatory cell",
    "connective": "cell of connective or soft tissue",
    "dead": "dead cell",
    "epithelial": "epithelial cell, not neoplastic",
}
_IMAGES = "[Ff]old*/images/fold*/images.npy"
_FOLD = re.compile(r"fold[ _]?([123])", re.IGNORECASE)
_PUBLISHED = {
    "fold1": {"images": 2_656},
    "fold2": {"images": 2_523},
    "fold3": {"images": 2_722},
}


def read(root: Path, public: PublicSet) -> Contents:
    """Read the folds that are there."""
    pictures: list[Found] = []
    for file in sorted(within(root, _IMAGES)):
        match = _FOLD.search(file.parent.name)
        if match is None:
            raise ConfigError(f"{printable(file)}: the folder is named after no fold (fold1)")
        base = file.parents[2]
        masks = base / "masks" / file.parent.name / "masks.npy"
        required([masks], root, public)
        pictures += _fold(file, masks, f"fold{match[1]}", public)
    return Contents(picture_set(pictures, "nuclei"), counted(pictures), _PUBLISHED)


def _fold(images: Path, masks: Path, fold: str, public: PublicSet) -> list[Found]:
    count = maps.length(images)
    if maps.length(masks) != count:
        raise ConfigError(
            f"{printable(masks)} holds {maps.length(masks):,} label maps for the {count:,} images"
            f" of {printable(images.name)}: download both again"
        )
    tissues = _tissues(images.with_name("types.npy"), count)
    names = [f"{fold} image {i}{tissue}" for i, tissue in enumerate(tissues)]
    return [
        picture(images, _labels(masks, i, names[i]), fold, public, item=item)
        for i, item in enumerate(maps.float_images(images, names))
    ]


def _labels(masks: Path, number: int, name: str) -> maps.Channels:
    return maps.Channels(masks, number, tuple(_CLASSES), f"{name} labels")


def _tissues(file: Path, count: int) -> list[str]:
    """The tissue of each image, to be named in messages; "" where the file is not there."""
    if not file.is_file():
        return [""] * count
    found = np.load(file, allow_pickle=False).tolist()
    return [f" ({tissue})" for tissue in found] if len(found) == count else [""] * count


SET = PublicSet(
    name="pannuke",
    title="PanNuke",
    task="segment",
    classes=_CLASSES,
    size="7,901 of 256 px",
    layout=(
        "Fold 1/images/fold1/images.npy and types.npy",
        "Fold 1/masks/fold1/masks.npy",
        "the same for Fold 2 and Fold 3",
    ),
    marks=(_IMAGES, f"*/{_IMAGES}"),
    parts="fold1, fold2 and fold3, as published",
    groups="none: patients were not published",
    licence="CC BY-NC-SA 4.0",
    commercial=False,
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    citation="Gamper et al. 2020, arXiv:2003.10778; Gamper et al. 2019,"
    " doi:10.1007/978-3-030-23937-4_2",
    mpp=0.25,
    stain="he",
    read=read,
    notes=(
        "PanNuke: labels are semi-automatic; folds were drawn over images, and images of one"
        " patient may be in several",
        "PanNuke: images are of TCGA and an own collection, and some were resampled to 40x;"
        " Lizard and MoNuSeg may have patients in common with it",
    ),
)
