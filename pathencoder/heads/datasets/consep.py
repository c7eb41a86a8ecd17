"""CoNSeP: nuclei of colorectal adenocarcinoma."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.heads.data.listing import Found
from pathencoder.heads.datasets.maps import Labels, Matlab
from pathencoder.heads.datasets.pictures import counted, picture, picture_set
from pathencoder.heads.datasets.places import files_of, required
from pathencoder.heads.datasets.public_set import Contents, PublicSet, option

_SEVEN = {
    1: "other",
    2: "inflammatory",
    3: "healthy epithelial",
    4: "malignant epithelial",
    5: "fibroblast",
    6: "muscle",
    7: "endothelial",
}
_FOUR = {
    1: "other",
    2: "inflammatory",
    3: "epithelial",
    4: "epithelial",
    5: "spindle-shaped",
    6: "spindle-shaped",
    7: "spindle-shaped",
}
_PUBLISHED = {"train": {"images": 27}, "test": {"images": 14}}


def read(root: Path, public: PublicSet, *, classes: int = 4) -> Contents:
    """Read both parts."""
    names = _FOUR if option("classes", classes, (4, 7)) == 4 else _SEVEN
    pictures: list[Found] = []
    for part in ("Train", "Test"):
        images = root / part / "Images"
        required([images, root / part / "Labels"], root, public)
        found = files_of(images, (".png",))
        files = [root / part / "Labels" / f"{image.stem}.mat" for image in found]
        required(files, root, public)
        pictures += [
            picture(image, Matlab(file, names, _kinds), part.casefold(), public)
            for image, file in zip(found, files, strict=True)
        ]
    data = picture_set(pictures, "nuclei")
    return Contents(data, counted(pictures), _PUBLISHED)


def _kinds(variables: Mapping[str, Any], labels: Labels) -> tuple[Labels, Labels]:
    """The most frequent class among the pixels of each nucleus."""
    types = np.asarray(variables["type_map"]).astype(int)
    inside = labels > 0
    pairs, counts = np.unique(np.stack([labels[inside], types[inside]]), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last of a number is its most frequent class
    of = dict(zip(pairs[0][order].tolist(), pairs[1][order].tolist(), strict=True))
    return np.array(list(of), int), np.array(list(of.values()), int)


SET = PublicSet(
    name="consep",
    title="CoNSeP",
    task="segment",
    classes={
        "other": "other cell",
        "inflammatory": "inflammatory cell",
        "epithelial": "healthy or malignant epithelial cell",
        "spindle-shaped": "fibroblast, muscle or endothelial cell",
    },
    size="41 of 1000 px",
    layout=(
        "CoNSeP/Train/Images/train_*.png and CoNSeP/Train/Labels/train_*.mat",
        "CoNSeP/Test/Images/test_*.png and CoNSeP/Test/Labels/test_*.mat",
    ),
    marks=("Train/Labels", "Test/Labels", "Train/Images", "Test/Images"),
    parts="train and test, as published",
    groups="none: 16 patients, which image is of whom was not published",
    licence="research only (terms of the download page)",
    commercial=False,
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet",
    citation="Graham et al. 2019, doi:10.1016/j.media.2019.101563",
    mpp=0.25,
    stain="he",
    read=read,
    options={"classes": "4 (the default), merged as in HoVer-Net, or the 7 of the files"},
    notes=(
        "CoNSeP: with four classes, healthy and malignant epithelial are one, and so are"
        " fibroblast, muscle and endothelial; figures with seven classes do not compare",
        "CoNSeP: its images are in Lizard too; patients may be in train and in test",
        "CoNSeP: nuclei are close together, one in twenty neighbours within 2 um",
    ),
)
