"""NCT-CRC-HE-100K and CRC-VAL-HE-7K: nine kinds of colorectal tissue."""

from __future__ import annotations

from pathlib import Path

from pathencoder.heads.datasets import images
from pathencoder.heads.datasets.counts import by_class
from pathencoder.heads.datasets.places import required
from pathencoder.heads.datasets.public_set import Contents, PublicSet, option

_CLASSES = {
    "ADI": "adipose tissue",
    "BACK": "background",
    "DEB": "debris",
    "LYM": "lymphocytes",
    "MUC": "mucus",
    "MUS": "smooth muscle",
    "NORM": "normal colon mucosa",
    "STR": "cancer-associated stroma",
    "TUM": "colorectal adenocarcinoma epithelium",
}
_COUNTS = {
    "train": (10_407, 10_566, 11_512, 11_557, 8_896, 13_536, 8_763, 10_446, 14_317),
    "test": (1_338, 847, 339, 634, 1_035, 592, 741, 421, 1_233),
}
_PUBLISHED = {part: dict(zip(_CLASSES, n, strict=True)) for part, n in _COUNTS.items()}
_TRAIN, _RAW, _TEST = "NCT-CRC-HE-100K", "NCT-CRC-HE-100K-NONORM", "CRC-VAL-HE-7K"


def read(root: Path, public: PublicSet, *, normalised: bool = True) -> Contents:
    """Read the train part with or without colour normalisation, and the test part."""
    wanted = _TRAIN if option("normalised", normalised, (True, False)) else _RAW
    folders = {"train": root / wanted, "test": root / _TEST}
    there = {part: folder for part, folder in folders.items() if folder.is_dir()}
    required([] if there else folders.values(), root, public)
    rows: list[images.Row] = []
    notes: list[str] = []
    for part, folder in there.items():
        found, left = images.class_folders(folder, part, _CLASSES, public)
        rows += found
        notes += left
    if wanted == _RAW and "test" in there:
        notes.append(f"{_TEST} is colour-normalised, {_RAW} is not: the parts differ in colour")
    data = images.dataset(rows, notes)
    return Contents(data, by_class(data), _PUBLISHED)


SET = PublicSet(
    name="nct-crc",
    title="NCT-CRC-HE-100K with CRC-VAL-HE-7K",
    task="classify",
    classes=_CLASSES,
    size="107,180 of 224 px",
    layout=(
        "NCT-CRC-HE-100K/ADI/*.tif, and so on for BACK DEB LYM MUC MUS NORM STR TUM",
        "CRC-VAL-HE-7K/ADI/*.tif, and so on",
        "NCT-CRC-HE-100K-NONORM/ADI/*.tif, and so on, for normalised=False",
    ),
    marks=(_TRAIN, _RAW, _TEST),
    parts="NCT-CRC-HE-100K is train, CRC-VAL-HE-7K is test",
    groups="none: file names carry no patient (86 slides in train, 50 other patients in test)",
    licence="CC BY 4.0",
    commercial=True,
    homepage="https://zenodo.org/records/1214456",
    citation="Kather et al. 2019, doi:10.1371/journal.pmed.1002730",
    mpp=0.5,
    stain="he",
    read=read,
    options={"normalised": "False reads NCT-CRC-HE-100K-NONORM instead"},
    notes=(
        "NCT-CRC-HE: mean red, green and blue alone reach over 50 % accuracy, a colour histogram"
        " over 82 %: strength of JPEG compression and colour differ by class, and some tiles have"
        " corrupted colours (Ignatov and Malivenko 2024, arXiv:2409.11546)",
        "NCT-CRC-HE: tiles of one patient may be in several folds of the train part",
    ),
)
