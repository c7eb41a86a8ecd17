"""GlaS (Warwick-QU): glands of the colon."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.label_maps import LabelMap
from pathencoder.heads.data.listing import Found
from pathencoder.heads.datasets.pictures import counted, picture, picture_set
from pathencoder.heads.datasets.places import files_of, listed, required
from pathencoder.heads.datasets.public_set import Contents, PublicSet, option
from pathencoder.tables import read_table
from pathencoder.walk import printable

_FILE = re.compile(r"(train|testA|testB)_\d+\.bmp")
_PUBLISHED = {"train": {"images": 85}, "testa": {"images": 60}, "testb": {"images": 20}}


def read(root: Path, public: PublicSet, *, patients: str = "as published") -> Contents:
    """Read the images and the label maps beside them."""
    rule = option("patients", patients, ("as published", "apart"))
    images = [file for file in files_of(root, (".bmp",)) if _FILE.fullmatch(file.name)]
    required([_labels(image) for image in images], root, public)
    of = _patients(root, images)
    if rule == "apart" and not of:
        raise ConfigError(f"patients='apart': {printable(root)} has no Grade.csv with the patients")
    pictures = [
        picture(image, LabelMap(_labels(image)), _part(image), public, group=of.get(image.stem))
        for image in images
    ]
    shared = _shared(pictures)
    notes = []
    kept = pictures
    if rule == "apart":
        kept = [p for p in pictures if p.split != "train" or p.group not in shared]
        left = len(pictures) - len(kept)
        notes.append(f"{left} train images of patients who are in a test part too were left out")
    elif shared:
        kept = [dataclasses.replace(p, group=None) for p in pictures]
        notes.append(
            f"patients {listed(sorted(shared))} are in train and in a test part, as published:"
            " figures are too good, and no groups are given (patients='apart' leaves their train"
            " images out)"
        )
    data = picture_set(kept, "glands", notes=notes)
    return Contents(data, counted(pictures), _PUBLISHED)


def _part(image: Path) -> str:
    return image.name.split("_")[0].casefold()


def _labels(image: Path) -> Path:
    return image.with_name(f"{image.stem}_anno.bmp")


def _patients(root: Path, images: Sequence[Path]) -> dict[str, str]:
    """The patient of each image, from Grade.csv; {} without it."""
    file = root / "Grade.csv"
    if not file.is_file():
        return {}
    table = read_table(file, ["name", "patient ID"])
    of = {row["name"]: row["patient id"] for row in table.rows}
    if missing := [image.stem for image in images if not of.get(image.stem)]:
        raise ConfigError(f"{printable(file)} names no patient of {listed(missing)}")
    return of


def _shared(pictures: Sequence[Found]) -> set[str]:
    """Patients who are in train and in another part."""
    train = {p.group for p in pictures if p.split == "train" and p.group}
    return {p.group for p in pictures if p.split != "train" and p.group in train if p.group}


SET = PublicSet(
    name="glas",
    title="GlaS (Warwick-QU)",
    task="segment",
    classes={"gland": "a gland, numbered in the label map"},
    size="165, most of 775 x 522 px",
    layout=(
        "Warwick_QU_Dataset/train_1.bmp and train_1_anno.bmp, to train_85",
        "Warwick_QU_Dataset/testA_1.bmp and testA_1_anno.bmp, to testA_60; testB_1 to testB_20",
        "Warwick_QU_Dataset/Grade.csv, for the patients",
    ),
    marks=("train_*_anno.bmp", "testA_*_anno.bmp", "testB_*_anno.bmp"),
    parts="train, testa and testb, as in the challenge",
    groups="patients, from Grade.csv, with patients='apart'; none as published, because eight of"
    " the nine patients of testA are in train too",
    licence="research only (terms of the challenge's page)",
    commercial=False,
    homepage="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
    citation="Sirinukunwattana et al. 2017, doi:10.1016/j.media.2016.08.008",
    mpp=0.62005,
    stain="he",
    read=read,
    options={"patients": "'as published' (the default), or 'apart': no patient in two parts"},
    notes=(
        "GlaS: images are fields of 16 slides, one a patient; CoNSeP is of the same hospital, and"
        " images of GlaS are in Lizard",
    ),
)
