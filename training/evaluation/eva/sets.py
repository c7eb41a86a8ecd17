"""The sets of eva (github.com/kaiko-ai/eva, 0.4.5) from local copies, with eva's own parts.

Where a set has no test part, the part that chooses the checkpoint is the one that is reported. That
is optimistic, in eva's rows as in ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.datasets.open import open_dataset
from pathencoder.images import ImageSource
from training.evaluation.eva import monusac, panda
from training.evaluation.eva.eva_set import NONE_BESIDE, EvaImages, EvaSet

# Numbers of BACH's images, sorted by class and name, that are eva's validation part: whole patients
_BACH_VAL = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))
_BREAKHIS_CLASSES = ("TA", "MC", "F", "DC")
_BREAKHIS_VAL = (
    *("18842D", "19979", "15275", "15792", "16875", "3909", "5287"),
    *("16716", "2773", "5695", "16184CD", "23060CD", "21998CD", "21998EF"),
)
_GLEASON_TRAIN, _GLEASON_VAL = ("ZT111", "ZT199", "ZT204"), "ZT76"
_GLEASON = re.compile(r"(?P<array>[^_]+)_.*_(?P<grade>[0-3])\.jpg")
_GLEASON_CLASSES = ("benign", "gleason_3", "gleason_4", "gleason_5")
_SHOTS, _SHOTS_SEED = 10, 42


def read_bach(folder: Path) -> EvaImages:
    """BACH: train and val by eva's list of patients."""
    data = _tiles(open_dataset("bach", folder))
    rows = sorted(zip(data.labels, map(_path, data.images), strict=True))
    val = {i for low, high in _BACH_VAL for i in range(low, high)}
    parts = ["val" if i in val else "train" for i in range(len(rows))]
    return _of(((path, label, part) for (label, path), part in zip(rows, parts, strict=True)))


def read_crc(folder: Path) -> EvaImages:
    """NCT-CRC-HE-100K is train, CRC-VAL-HE-7K val."""
    return _renamed(_tiles(open_dataset("nct-crc", folder)), {"train": "train", "test": "val"})


def read_mhist(folder: Path) -> EvaImages:
    """MHIST: its test part is val."""
    return _renamed(_tiles(open_dataset("mhist", folder)), {"train": "train", "test": "val"})


def read_pcam(folder: Path) -> EvaImages:
    """PatchCamelyon: its own three parts."""
    data = _tiles(open_dataset("pcam", folder))
    found = _renamed(data, {p: p for p in ("train", "val", "test")})
    files = sorted(folder.glob("**/camelyonpatch_level_2_split_*_?.h5"))
    return EvaImages(found.images, found.labels, found.parts, files)


def read_pcam_10_shots(folder: Path) -> EvaImages:
    """PatchCamelyon with 10 training tiles a class; the draw is eva's, one for all runs.

    Raises:
        ConfigError: A class has fewer training tiles.
    """
    whole = read_pcam(folder)
    train = np.array([part == "train" for part in whole.parts])
    labels = np.array(whole.labels)
    few = set(drawn(labels[train]))
    rows = [*few, *np.flatnonzero(~train).tolist()]
    notes = [f"10 tiles a class of {train.sum():,} training tiles, the same in every run"]
    if train.sum() != _PCAM["train"]:
        notes.append(f"{NONE_BESIDE}: 10 of {train.sum():,} tiles, in eva of {_PCAM['train']:,}")
    return EvaImages(
        [whole.images[i] for i in rows],
        [whole.labels[i] for i in rows],
        [whole.parts[i] for i in rows],
        whole.files,
        tuple(notes),
    )


def drawn(labels: Sequence[str]) -> list[int]:
    """Numbers of 10 tiles of each class, drawn with eva's seed; classes as they first occur.

    Raises:
        ConfigError: A class has fewer tiles.
    """
    rng, y = np.random.default_rng(_SHOTS_SEED), np.array(labels)
    chosen: list[int] = []
    for name in dict.fromkeys(labels):
        of_class = np.flatnonzero(y == name)
        if len(of_class) < _SHOTS:
            raise ConfigError(
                f"{len(of_class)} training tiles of {name}; {_SHOTS} are drawn of each class: is"
                " the copy whole?"
            )
        chosen += rng.choice(of_class, size=_SHOTS, replace=False).tolist()
    return chosen


def read_breakhis(folder: Path) -> EvaImages:
    """BreakHis at 40x: four classes, train and val by eva's list of patients."""
    data = _tiles(open_dataset("breakhis", folder, task="type", magnification=40))
    rows = []
    for image, label in zip(data.images, data.labels, strict=True):
        if label in _BREAKHIS_CLASSES:
            patient = _path(image).name.split("-")[2]
            rows.append((_path(image), label, "val" if patient in _BREAKHIS_VAL else "train"))
    return _of(rows)


def read_gleason(folder: Path) -> EvaImages:
    """Gleason grades (Arvaniti et al. 2018): microarray ZT76 is val, the first pathologist test.

    Raises:
        ConfigError: The folders are missing, or a file is not named as published.
    """
    places = ("train_validation_patches_750", "test_patches_750/patho_1")
    if missing := [p for p in places if not (folder / p).is_dir()]:
        raise ConfigError(
            f"{folder} does not hold the Gleason patches: {missing[0]} is missing. Unpack"
            " train_validation_patches_750 and test_patches_750 of"
            " https://doi.org/10.7910/DVN/OCYCMP into it"
        )
    rows = []
    for file in sorted(f for place in places for f in (folder / place).rglob("*.jpg")):
        match = _GLEASON.fullmatch(file.name)
        if match is None:
            raise ConfigError(f"{file} is not named like the set's patches (ZT76_39_A_1_12_1.jpg)")
        part = _gleason_part(match["array"], file.relative_to(folder))
        rows.append((file, _GLEASON_CLASSES[int(match["grade"])], part))
    return _of(rows)


def _gleason_part(array: str, file: Path) -> str:
    if array == _GLEASON_VAL:
        return "val"
    if array in _GLEASON_TRAIN:
        return "train"
    if file.parts[0] == "test_patches_750":
        return "test"
    raise ConfigError(f"{file}: the microarray {array} is not one of the set's")


def _renamed(data: Dataset, parts: Mapping[str, str]) -> EvaImages:
    """A data set whose parts have eva's names."""
    rows = [i for i in range(len(data)) if data.part(i) in parts]
    images = [data.images[i] for i in rows]
    return EvaImages(
        images,
        [data.labels[i] for i in rows],
        [parts[data.part(i)] for i in rows],
        [Path(i) for i in images if isinstance(i, str | Path)],
    )


def _tiles(data: object) -> Dataset:
    assert isinstance(data, Dataset)
    return data


def _path(image: ImageSource) -> Path:
    assert isinstance(image, str | Path)
    return Path(image)


def _of(rows: Iterable[tuple[Path, str, str]]) -> EvaImages:
    images, labels, parts = zip(*rows, strict=True)
    return EvaImages(images, labels, parts, images)


_PCAM = {"train": 262_144, "val": 32_768, "test": 32_768}
_ON_VAL = "reported on the part that chose the checkpoint: optimistic, as in eva's rows"
EVA_SETS = (
    EvaSet(
        "bach",
        "breast, four kinds of tissue (BACH)",
        read_bach,
        ("Benign", "InSitu", "Invasive", "Normal"),
        {"train": 268, "val": 132},
        1_250,
        {"val": "bach"},
        "https://zenodo.org/records/3632035",
        "CC BY-NC-ND 4.0",
        (
            _ON_VAL,
            "images of 2,048 x 1,536 px are reduced to 224 px: not true to scale; eva leaves this"
            " set out of its mean",
        ),
    ),
    EvaSet(
        "crc",
        "colorectum, nine kinds of tissue (NCT-CRC-HE-100K)",
        read_crc,
        ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"),
        {"train": 100_000, "val": 7_180},
        7,
        {"val": "crc"},
        "https://zenodo.org/records/1214456",
        "CC BY 4.0",
        (_ON_VAL,),
    ),
    EvaSet(
        "mhist",
        "colorectal polyps (MHIST)",
        read_mhist,
        ("HP", "SSA"),
        {"train": 2_175, "val": 977},
        278,
        {"val": "mhist"},
        "https://bmirds.github.io/MHIST/",
        "Dataset Research Use Agreement",
        (_ON_VAL,),
    ),
    EvaSet(
        "patch_camelyon",
        "lymph node, tumour in the middle (PatchCamelyon)",
        read_pcam,
        ("normal", "tumour"),
        _PCAM,
        3,
        {"val": "patch_camelyon", "test": "patch_camelyon/test"},
        "https://github.com/basveeling/pcam",
        "CC0 1.0",
    ),
    EvaSet(
        "gleason_arvaniti",
        "prostate, Gleason grades (Arvaniti)",
        read_gleason,
        _GLEASON_CLASSES,
        {"train": 15_303, "val": 2_482, "test": 4_967},
        42,
        {"val": "gleason_arvaniti"},
        "https://doi.org/10.7910/DVN/OCYCMP",
        "CC0 1.0",
        (_ON_VAL, "eva calls its test part unstable and reports val"),
    ),
    EvaSet(
        "breakhis",
        "breast tumours at 40x, four types (BreakHis)",
        read_breakhis,
        _BREAKHIS_CLASSES,
        {"train": 1_132, "val": 339},
        500,
        {"val": "breakhis"},
        "https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        "CC BY 4.0",
        (_ON_VAL,),
    ),
    EvaSet(
        "patch_camelyon_10_shots",
        "lymph node, tumour in the middle, 10 training tiles a class (PatchCamelyon)",
        read_pcam_10_shots,
        ("normal", "tumour"),
        {**_PCAM, "train": 2 * _SHOTS},
        125,
        {"val": "", "test": ""},
        "https://github.com/basveeling/pcam",
        "CC0 1.0",
        (f"{NONE_BESIDE}: the leaderboard of April 2026 has no column for it",),
        runs=50,
        every=10,
        least=1e-4,
    ),
    EvaSet(
        "monusac",
        "nuclei of four classes, four organs (MoNuSAC)",
        monusac.read_monusac,
        monusac.CLASSES,
        {"train": 209, "val": 85},
        100,
        {"val": "monusac"},
        "https://monusac-2020.grand-challenge.org/Data/",
        "CC BY-NC-SA 4.0",
        (
            _ON_VAL,
            "Dice of a trained decoder that also sees the image, on crops without a fixed scale:"
            " what the encoder adds is small",
        ),
        kind="masks",
    ),
    EvaSet(
        "panda_small",
        "prostate, grade of a slide (a fifth of PANDA)",
        panda.read_panda,
        ("0", "1", "2", "3", "4", "5"),
        {"train": 955, "val": 477, "test": 477},
        20,
        {"val": "panda_small", "test": "panda_small/test"},
        "https://www.kaggle.com/c/prostate-cancer-grade-assessment/data",
        "CC BY-SA-NC 4.0",
        (
            "val chose the checkpoint: optimistic, as in eva's rows; test chose nothing",
            "the hash is of names, grades, parts and sizes of the slides",
        ),
        kind="slides",
        runs=20,
    ),
)
BY_NAME = {s.name: s for s in EVA_SETS}
# Sets of the leaderboard that are not run here, and why no row of ours can stand beside theirs.
NOT_HERE = {
    "consep": "its images cannot be downloaded at present (hover_net issue 267)",
    "camelyon16_small": "1,000 tiles a slide of 700 GB of slides; not built here",
}
