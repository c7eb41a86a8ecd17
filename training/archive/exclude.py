"""Slides that evaluation sets hold: found by patient or by the sha256 of the file, never used.

One CSV a set, in training/archive/benchmarks/ and wherever --exclude names one: columns patient
(as the set publishes it, or as the hospital has it) and sha256 (of the file; the first 16 digits
are enough); one of the two in each row. The files of training/evaluation/splits/ that are not of a
train part count as well.

A patient is listed where its code is published and cannot be another hospital's number: TCGA's.

A slide that a list excluded stays excluded in runs without that list: only the same list, given
again without the slide, takes that back.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.tables import read_table
from training.archive.privacy import Pseudonyms

LISTS = Path(__file__).with_name("benchmarks")
FILES = Path(__file__).parents[1] / "evaluation" / "splits"
_DIGITS = 16  # of a sha256 that count: 64 bits
_SHA256 = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Excluded:
    """The patients and files of evaluation sets.

    Attributes:
        patients: Patient, as the manifest writes it -> the sets.
        files: First 16 digits of a sha256 -> the sets.
        read: Every set whose list was read -> whether the list names files.
    """

    patients: dict[str, tuple[str, ...]]
    files: dict[str, tuple[str, ...]]
    read: Mapping[str, bool]

    def sets_of(self, patient: str, sha256: str, before: str = "") -> str:
        """The sets that hold a slide, with spaces between; "" for none.

        Args:
            patient: As the manifest writes it.
            sha256: Of its file; "" where it is not known.
            before: The sets of an earlier run. Those stay that cannot be asked now: their list was
                not read, or it names files and that of the slide is not known any more.
        """
        found = {*self.patients.get(patient, ()), *self.files.get(sha256[:_DIGITS], ())}
        found.update(
            name
            for name in before.split()
            if name not in self.read or (self.read[name] and not sha256)
        )
        return " ".join(sorted(found))


def read_lists(more: Sequence[Path], codes: Pseudonyms) -> Excluded:
    """Read the lists of this repository, and others.

    Args:
        more: Further lists.
        codes: Gives the code of a hospital's patient.

    Raises:
        ConfigError: A list cannot be read or a row is not valid: the message lists all problems.
    """
    patients: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    read: dict[str, bool] = {}
    problems: list[str] = []
    for file in (*sorted(LISTS.glob("*.csv")), *more):
        table = read_table(file)
        if not {"patient", "sha256"} & set(table.columns):
            problems.append(f"{file}: it has neither a column patient nor sha256")
            continue
        name = "_".join(file.stem.split())  # a manifest writes spaces between sets
        read.setdefault(name, False)
        for where, row in table:
            patient, sha256 = row.get("patient", ""), row.get("sha256", "").casefold()
            if bool(patient) == bool(sha256) or (sha256 and not _SHA256.fullmatch(sha256)):
                problems.append(
                    f"{where}: give a patient, or a sha256 of 16 to 64 hexadecimal digits"
                )
            elif patient:
                for written in _written(patient, codes):
                    patients.setdefault(written, set()).add(name)
            else:
                files.setdefault(sha256[:_DIGITS], set()).add(name)
                read[name] = True
    for name, sha256 in _held_out_files():
        files.setdefault(sha256[:_DIGITS], set()).add(name)
        read[name] = True
    if problems:
        raise ConfigError("\n".join(["lists of evaluation sets:", *problems[:50]]))
    return Excluded(_sorted(patients), _sorted(files), read)


def _held_out_files() -> Iterator[tuple[str, str]]:
    """Set and sha256 of the listed files that are of no train part."""
    for file in sorted(FILES.glob("*.csv.gz")):
        with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["split"] != "train":
                    yield file.name.removesuffix(".csv.gz"), row["sha256"]


def _written(patient: str, codes: Pseudonyms) -> Iterable[str]:
    """The ways in which a manifest may write a patient."""
    return {codes.code_of(patient), codes.code_of(patient, published=True)}


def _sorted(found: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(sorted(sets)) for key, sets in found.items()}
