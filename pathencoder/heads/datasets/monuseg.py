"""MoNuSeg 2018: nuclei of several organs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathencoder.heads.data.listing import Found
from pathencoder.heads.datasets.aperio import OneClass, stated_mpp
from pathencoder.heads.datasets.pictures import counted, picture, picture_set
from pathencoder.heads.datasets.places import files_of, required
from pathencoder.heads.datasets.public_set import Contents, PublicSet

_TRAIN, _TEST = "MoNuSeg 2018 Training Data", "MoNuSegTestData"
_TRAIN_IMAGES = (30, 37)  # in the challenge, and in the download of today


def read(root: Path, public: PublicSet) -> Contents:
    """Read the parts whose folders are there."""
    pictures: list[Found] = []
    if (root / _TRAIN).is_dir():
        images, outlines = root / _TRAIN / "Tissue Images", root / _TRAIN / "Annotations"
        required([images, outlines], root, public)
        pictures += _pictures(images, outlines, "train", root, public)
    if (root / _TEST).is_dir():
        pictures += _pictures(root / _TEST, root / _TEST, "test", root, public)
    found = counted(pictures)
    count = found.get("train", {}).get("images", 0)
    train = count if count in _TRAIN_IMAGES else _TRAIN_IMAGES[-1]
    published = {"train": {"images": train}, "test": {"images": 14}}
    return Contents(picture_set(pictures, "nuclei"), found, published)


def _pictures(
    images: Path, outlines: Path, part: str, root: Path, public: PublicSet
) -> Sequence[Found]:
    found = files_of(images, (".tif", ".tiff", ".png"))
    files = [outlines / f"{image.stem}.xml" for image in found]
    required(files or [images / "TCGA-*.tif"], root, public)
    return [
        picture(
            image,
            OneClass(file, "nucleus"),
            part,
            public,
            group="-".join(image.stem.split("-")[:3]),
            mpp=stated_mpp(file),
        )
        for image, file in zip(found, files, strict=True)
    ]


SET = PublicSet(
    name="monuseg",
    title="MoNuSeg 2018",
    task="segment",
    classes={"nucleus": "a nucleus"},
    size="51 of 1000 px",
    layout=(
        "MoNuSeg 2018 Training Data/Tissue Images/TCGA-*.tif",
        "MoNuSeg 2018 Training Data/Annotations/TCGA-*.xml",
        "MoNuSegTestData/TCGA-*.tif and TCGA-*.xml",
    ),
    marks=(_TRAIN, _TEST),
    parts="train and test, as in the challenge",
    groups="patients, from the TCGA barcodes of the file names",
    licence="CC BY-NC-SA 4.0",
    commercial=False,
    homepage="https://monuseg.grand-challenge.org/Data/",
    citation="Kumar et al. 2020, doi:10.1109/TMI.2019.2947628; Kumar et al. 2017,"
    " doi:10.1109/TMI.2017.2677499",
    mpp=0.25,
    stain="he",
    read=read,
    notes=(
        "MoNuSeg: the train part has 37 images today; the 30 of the challenge are those of Kumar"
        " et al. 2017, whose own test images are among them: do not train on MoNuSeg and evaluate"
        " on Kumar",
        "MoNuSeg: the test files hold 6,697 outlines, the publication says 7,223",
        "MoNuSeg: overlapping outlines become one label a pixel, small nuclei on top",
    ),
)
