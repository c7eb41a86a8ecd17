"""BreakHis: breast tumours at four magnifications."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.datasets import images
from pathencoder.heads.datasets.counts import by_class
from pathencoder.heads.datasets.places import expected, listed, required
from pathencoder.heads.datasets.public_set import Contents, PublicSet, option
from pathencoder.walk import printable, walk

_TYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumour",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
_BENIGN = ("A", "F", "PT", "TA")
_COUNTS = {
    40: (114, 253, 109, 149, 864, 156, 205, 145),
    100: (113, 260, 121, 150, 903, 170, 222, 142),
    200: (111, 264, 108, 140, 896, 163, 196, 135),
    400: (106, 237, 115, 130, 788, 137, 169, 138),
}
# SOB_M_DC-14-2523-40-010.png: type, year and patient with the letters of a slide, magnification
_FILE = re.compile(r"SOB_[BM]_(A|F|PT|TA|DC|LC|MC|PC)-((\d+-\d+)[A-Z]*)-(\d+)-\d+\.png")


@dataclass(frozen=True)
class _Image:
    """One image, as its file name describes it."""

    file: Path
    type: str
    slide: str
    patient: str

    @property
    def malignant(self) -> str:
        return "benign" if self.type in _BENIGN else "malignant"


def read(
    root: Path,
    public: PublicSet,
    *,
    magnification: int = 40,
    task: str = "malignant",
    fold: int | None = None,
) -> Contents:
    """Read the images of one magnification."""
    factor = option("magnification", magnification, tuple(_COUNTS))
    kind = option("task", task, ("malignant", "type"))
    found, notes = _images(root, factor)
    if not found:
        raise ConfigError(
            f"{printable(root)} holds no images of the magnification {factor}X\n{expected(public)}"
        )
    number = option("fold", fold, (None, 1, 2, 3, 4, 5))
    parts = ["train"] * len(found)
    if number is not None:
        found, parts, left = _fold(root, found, number, public)
        notes += left
    groups, left = _groups(found, parts)
    rows = [
        images.Row(image.file, image.type if kind == "type" else image.malignant, part, group)
        for image, part, group in zip(found, parts, groups, strict=True)
    ]
    data = images.dataset(rows, [*notes, *left])
    published = {} if number is not None else {"train": _published(factor, kind)}
    return Contents(data, by_class(data), published)


def _published(factor: int, kind: str) -> dict[str, int]:
    of = dict(zip(_TYPES, _COUNTS[factor], strict=True))
    if kind == "type":
        return of
    benign = sum(of[name] for name in _BENIGN)
    return {"benign": benign, "malignant": sum(of.values()) - benign}


def _images(root: Path, factor: int) -> tuple[list[_Image], list[str]]:
    """The images of a magnification, and notes on other files."""
    found, others = [], []
    for file in walk(root / "histology_slides").files:
        match = _FILE.fullmatch(file.name)
        if match is None:
            others.append(printable(file.name))
        elif int(match[4]) == factor:
            found.append(_Image(file, match[1], match[2], match[3]))
    notes = [f"left out, not named like the set's images: {listed(others)}"] if others else []
    return found, notes


def _fold(
    root: Path, found: Sequence[_Image], number: int, public: PublicSet
) -> tuple[list[_Image], list[str], list[str]]:
    """The images of a split that the authors published, their parts, and notes."""
    name = f"dsfold{number}.txt"
    table = next((p for p in (*root.glob(name), *root.glob(f"*/{name}"))), root.parent / name)
    required([table], root, public)
    part_of = {}
    for line in table.read_text(encoding="utf-8").splitlines():
        fields = line.strip().split("|")
        if len(fields) == 4 and fields[3] in ("train", "test"):
            part_of[fields[0]] = fields[3]
    kept = [image for image in found if image.file.name in part_of]
    if not kept:
        raise ConfigError(
            f"{printable(table)} names none of the images; its lines are IMAGE|40|1|train"
        )
    left = len(found) - len(kept)
    notes = [f"{left:,} images that {name} does not name were left out"] if left else []
    return kept, [part_of[image.file.name] for image in kept], notes


def _groups(found: Sequence[_Image], parts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The widest groups that the parts do not divide, and a note where those are not patients."""
    rules: tuple[tuple[str, Callable[[_Image], str]], ...] = (
        ("patients", lambda image: image.patient),
        ("slides", lambda image: image.slide),
        ("slides by type of tumour", lambda image: f"{image.type}-{image.slide}"),
    )
    divided: list[str] = []
    groups: list[str] = []
    for words, rule in rules:
        groups = [rule(image) for image in found]
        both = _in_both(groups, parts)
        if not both and divided:
            return groups, [
                f"the authors' fold has images of the patients {listed(divided)} in train and in"
                f" test: groups are {words}"
            ]
        if not both:
            break
        divided = divided or both
    return groups, []


def _in_both(groups: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The groups that are in two parts."""
    of = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        of[group].add(part)
    return sorted(group for group, its in of.items() if len(its) > 1)


SET = PublicSet(
    name="breakhis",
    title="BreakHis",
    task="classify",
    classes={"benign": "benign tumour", "malignant": "malignant tumour", **_TYPES},
    size="7,909 of 700 x 460 px",
    layout=(
        "BreaKHis_v1/histology_slides/breast/{benign,malignant}/SOB/TYPE/SLIDE/40X/SOB_*.png",
        "dsfold1.txt to dsfold5.txt, beside BreaKHis_v1, inside it or in mkfold/, for fold=",
    ),
    marks=("histology_slides",),
    parts="all is train; with fold=1 to 5 train and test as the authors divided the patients",
    groups="patients, from the file names (14-22549AB and 14-22549CD are one patient)",
    licence="CC BY 4.0",
    commercial=True,
    homepage="https://web.inf.ufpr.br/vri/databases/"
    "breast-cancer-histopathological-database-breakhis/",
    citation="Spanhol et al. 2016, doi:10.1109/TBME.2015.2496264",
    mpp=None,
    stain="he",
    read=read,
    options={
        "magnification": "40 (the default), 100, 200 or 400: 0.49, 0.20, 0.10 or 0.05 um/px",
        "task": "'malignant' (the default; benign or malignant) or 'type' (eight types)",
        "fold": "1 to 5: the division of the authors, from dsfold1.txt to dsfold5.txt",
    },
    notes=(
        "BreakHis: the five folds are five divisions into train and test, whose test parts overlap:"
        " fit each and average",
        "BreakHis: images of patient 14-13412 are filed as ductal and as lobular carcinoma",
        "BreakHis: the table of the web page says 652 benign images at 40X; there are 625",
    ),
)
