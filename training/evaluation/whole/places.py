"""Robustness to the place: the centre of a tile, and fields that several scanners scanned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.images import open_image
from training.evaluation import centres, probe
from training.evaluation.outcomes import Ints, Outcome
from training.evaluation.report_rows import Result, SetRow
from training.evaluation.robustness import CUTS, Image, fields_of
from training.evaluation.set_lists import Entry, digest, sha256_of
from training.evaluation.whole.features import Rows
from training.evaluation.whole.fits import Job, interval

# Below the folder of slides: one field by five scanners, and one region by two, which is cut into
# CUTS x CUTS fields.
_FIVE = "slides/thumbnails/five_scanners_SCC"
_PAIR = (
    "slides/generic/OS-2_Ki67_hamamatsu_mpp0.227_pyramid.tiff",
    "slides/generic/OS-2_Ki67_olympus_mpp0.346_pyramid.tiff",
)
_ONE_SLIDE = "one slide: how far embeddings move, not how far a figure does"


@dataclasses.dataclass(frozen=True)
class Scans:
    """Fields that several scanners scanned.

    Attributes:
        row: Of the report.
        files: The scans.
    """

    row: SetRow
    files: tuple[Path, ...]

    @property
    def key(self) -> str:
        """Its name and the beginning of the hash of its content."""
        return f"{self.row.name}@{self.row.sha256[:12]}"

    @property
    def count(self) -> int:
        """Number of fields."""
        return len(self.files) * (CUTS**2 if self.row.name == "two_scanners" else 1)

    def fields(self) -> list[Image]:
        """The fields, scanner by scanner."""
        if self.row.name == "five_scanners":
            return [open_image(file) for file in self.files]
        return [field for file in self.files for field in fields_of(file)]


def open_scans(data: Path) -> list[Scans]:
    """The scans that are there below the folder of data."""
    five, pair = sorted((data / _FIVE).glob("*.png")), [data / p for p in _PAIR]
    found = []
    if all(p.is_file() for p in pair):
        title = "one region of a Ki67 section by two scanners, in 16 fields"
        found.append(_scans("two_scanners", title, "ihc", pair))
    if len(five) > 1:
        title = "one field of a skin carcinoma by five scanners"
        found.append(_scans("five_scanners", title, "he", five))
    return found


def _scans(name: str, title: str, stain: str, files: list[Path]) -> Scans:
    entries = [Entry(f.name, "", "", "", "", sha256_of(f)) for f in files]
    row = SetRow(
        name=name,
        title=title,
        stain="ihc" if stain == "ihc" else "he",
        groups="field",
        sha256=digest(entries),
        notes=(_ONE_SLIDE,),
    )
    return Scans(row, tuple(files))


def scanned(name: str, scans: Scans, rows: Rows, background: Rows, other: Rows) -> list[Result]:
    """Cosines of the same field by different scanners, and of different fields.

    Args:
        name: Of the row.
        scans: The fields.
        rows: Their embeddings.
        background: Embeddings of other tiles, whose mean is the centre: centred on their own mean,
            a few fields would have negative cosines whatever they show.
        other: Embeddings of the fields of two scanners: other fields for the one of five.

    Returns:
        The figures; for two scanners how well the scanner is predicted from the embedding, too.
    """
    centre = background.mean(0)
    unit, away = (_unit(x - centre) for x in (rows, other))
    counts = {"n": scans.count, "n_groups": CUTS**2 if len(scans.files) == 2 else 1}
    common = {"encoder": name, "set": scans.row.name, "part": "all", "notes": (_ONE_SLIDE,)}
    if scans.row.name == "five_scanners":
        same = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        others = (unit @ away.T).ravel()
    else:
        cosine = unit[: CUTS**2] @ unit[CUTS**2 :].T
        same, others = np.diag(cosine), cosine[~np.eye(len(cosine), dtype=bool)]
    found = [
        Result(verb="robustness", metric=metric, value=float(values.mean()), **common, **counts)  # type: ignore[arg-type]
        for metric, values in (("same_field", same), ("other_fields", others))
    ]
    if scans.row.name == "two_scanners":
        scanner = np.repeat([f.name for f in scans.files], CUTS**2)
        field = np.tile(np.arange(CUTS**2).astype(str), 2)
        found += _centre_result(name, scans.row.name, rows, scanner, field, "field")
    return found


def by_centre(job: Job) -> list[Result]:
    """The robustness index where the set allows it, and how well centres are predicted.

    Args:
        job: The tiles, with their centres; of several training runs the first is measured.
    """
    names, labels, x = job.centres, job.tiles.labels, job.rows(0)
    if names is None:
        return []
    found = []
    if centres.allows_index(labels.y, names):
        counts = centres.neighbour_counts(x, labels.y, names, labels.groups)
        fake = Outcome(labels.y, labels.groups, labels.y, np.zeros((0, 0)), labels.y, {})
        around = probe.interval_of(fake, counts.index)
        notes = (
            f"k {centres.NEIGHBOURS}; {len(set(names.tolist()))} centres; by chance"
            f" {counts.chance:.3f}; not one of PathoROB's sets",
        )
        result = job.result(
            "robustness",
            "robustness_index",
            counts.index(),
            condition=f"k {centres.NEIGHBOURS}",
            interval=interval(around, job.groups_are),
            n=len(x),
            n_groups=len(set(labels.groups.tolist())),
            runs=1,
            notes=notes,
        )
        found.append(dataclasses.replace(result, part="all"))
    return found + _centre_result(job.row, job.tiles.name, x, names, labels.groups, job.groups_are)


def _centre_result(
    row: str,
    name: str,
    x: Rows,
    names: NDArray[np.str_],
    groups: NDArray[np.str_],
    groups_are: str,
) -> list[Result]:
    """How well a linear model tells centres; nothing where folds cannot hold every centre."""
    probability = centres.centre_probabilities(x, names, groups)
    if probability is None:
        return []
    _, y = np.unique(names, return_inverse=True)

    def figure(i: Ints) -> float:
        return centres.centre_auroc(names[i], probability[i])

    around = probe.interval_of(Outcome(y, groups, y, probability, y, {}), figure)
    return [
        Result(
            encoder=row,
            set=name,
            part="all",
            verb="robustness",
            metric="centre_auroc",
            value=figure(np.arange(len(y))),
            interval=interval(around, groups_are),
            n=len(y),
            n_groups=len(set(groups.tolist())),
            notes=(f"{len(set(names.tolist()))} centres, by folds over groups",),
        )
    ]


def _unit(x: Rows) -> Rows:
    unit: Rows = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    return unit
