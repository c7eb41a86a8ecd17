"""Lizard: nuclei of the colon, in six classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.datasets.maps import Labels, Matlab
from pathencoder.heads.datasets.pictures import picture, picture_set
from pathencoder.heads.datasets.places import required, within
from pathencoder.heads.datasets.public_set import Contents, PublicSet
from pathencoder.tables import read_table
from pathencoder.walk import printable

_CLASSES = {
    1: "neutrophil",
    2: "epithelial",
    3: "lymphocyte",
    4: "plasma",
    5: "eosinophil",
    6: "connective",
}


def read(root: Path, public: PublicSet) -> Contents:
    """Read the images that info.csv names, with its three folds."""
    info = next(within(root, "Lizard_Labels/info.csv"))
    images = {
        file.stem: file
        for name in ("Lizard_Images1", "Lizard_Images2")
        for file in within(root, f"{name}/*.png")
    }
    pictures = []
    wanted: list[Path] = []
    for where, row in read_table(info, ["Filename", "Source", "Split"]):
        name = row["filename"].removesuffix(".png")
        if row["split"] not in ("1", "2", "3"):
            raise ConfigError(f"{printable(where)}: the split {row['split']!r} is not 1, 2 or 3")
        image = images.get(name, root / "Lizard_Images1 or Lizard_Images2" / f"{name}.png")
        labels = info.parent / "Labels" / f"{name}.mat"
        wanted += [image, labels]
        source = Matlab(labels, _CLASSES, _kinds)
        pictures.append(picture(image, source, f"fold{row['split']}", public))
    required(wanted, root, public)
    data = picture_set(pictures, "nuclei")
    return Contents(data, {"all": {"images": len(pictures)}}, {"all": {"images": 238}})


def _kinds(variables: Mapping[str, Any], _: Labels) -> tuple[Labels, Labels]:
    return np.ravel(variables["id"]).astype(int), np.ravel(variables["class"]).astype(int)


SET = PublicSet(
    name="lizard",
    title="Lizard",
    task="segment",
    classes={name: f"{name} cell" for name in _CLASSES.values()},
    size="238 of about 1000 px",
    layout=(
        "Lizard_Labels/info.csv with the columns Filename, Source, Split",
        "Lizard_Labels/Labels/*.mat",
        "Lizard_Images1/*.png and Lizard_Images2/*.png",
    ),
    marks=("Lizard_Labels/info.csv", "*/Lizard_Labels/info.csv"),
    parts="fold1, fold2 and fold3, from the column Split",
    groups="none: patients were not published",
    licence="CC BY-NC-SA 4.0",
    commercial=False,
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/lizard",
    citation="Graham et al. 2021, arXiv:2108.11195",
    mpp=0.5,
    stain="he",
    read=read,
    notes=(
        "Lizard: its images are from GlaS, CRAG, CoNSeP, DigestPath and PanNuke, some of them"
        " resampled to 20x: do not train on Lizard and evaluate on one of those, nor on CoNIC,"
        " which is Lizard in patches",
        "Lizard: labels are semi-automatic; the publication's nearly half a million nuclei include"
        " images of TCGA that are not in the download",
    ),
)
