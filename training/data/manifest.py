"""The columns of a manifest of tiles or of slides: which rows are used, their stain and organ."""

from __future__ import annotations

import hashlib
import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.tables import Table
from training.data import licences
from training.data.columns import Columns
from training.data.contents import mpp_of
from training.data.values import Split, column, is_used, name_of, nearest, one_of, split_of

log = logging.getLogger(__name__)

# The stain classes that augmentation knows; a folder without a manifest is "unknown".
STAIN_CLASSES = ("he", "ihc", "special", "cytology", "mixed", "unknown")
# Columns that are not read, with a name close to one that excludes rows.
_MISNAMED = {
    "license": "licence",
    "licenses": "licence",
    "licences": "licence",
    "splits": "split",
    "used": "use",
}


@dataclass(frozen=True)
class Wanted:
    """Filters on the rows of a manifest; empty: all rows. Case does not matter.

    `share` is the share of the patients that are read; larger shares hold smaller ones. `but` are
    slides that another corpus holds: they are not read from their files.
    """

    licences: tuple[str, ...] = ()
    stains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    share: float = 1.0
    but: frozenset[str] = frozenset()

    def asked(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """(setting, column, values) of every filter that is set."""
        settings = (("licences", "licence"), ("stains", "stain_class"), ("without", "src"))
        for setting, name in settings:
            if values := getattr(self, setting):
                yield setting, name, tuple(value.strip().casefold() for value in values)

    def refuse(self, root: Path | str) -> None:
        """Raise ConfigError where a filter is set, for a corpus without a table."""
        if self.share < 1:
            raise ConfigError(
                f"data.share={self.share:g}: {root} has no manifest.csv or slides.csv that names"
                " patients or slides. Add one, or ask for all images: data.share=1"
            )
        for setting, name, values in self.asked():
            raise ConfigError(
                f"data.{setting}=[{', '.join(values)}]: {root} has no manifest.csv or slides.csv"
                f" with a column {name!r}. Add one, or ask for all images: data.{setting}=[]"
            )


@dataclass(frozen=True)
class Rows:
    """The values of a manifest, one per row.

    Attributes:
        used: Whether the row may be trained on and passes the filters.
        stains: Index into STAIN_CLASSES.
        organs: In lower case; "unknown" where none is named.
        licences: The licence class (P, N) or the licence; "" where none is stated.
        mpp: Micrometres per pixel by the column mpp_value; NaN where none is stated.
    """

    used: list[bool]
    stains: list[int]
    organs: list[str]
    licences: list[str]
    mpp: list[float]


def read_rows(table: Table | Columns, wanted: Wanted) -> Rows:
    """Read the columns of a manifest of tiles or of slides.

    Args:
        table: A table; optional columns: patient, slide, stain_class, organ, licence, src, split,
            use, mpp_value.
        wanted: The filters.

    Returns:
        One value per row.

    Raises:
        ConfigError: A value of use, split, licence or stain_class is unknown, a filter asks for a
            column or value that the table lacks, or a patient or a slide is in two splits.
    """
    _refuse_misnamed_columns(table)
    used = column(table, "use", is_used, missing="1")
    splits = column(table, "split", split_of)
    stains = [name or "unknown" for name in column(table, "stain_class", one_of(STAIN_CLASSES))]
    values = {
        "licence": column(table, "licence", licences.read),
        "stain_class": stains,
        "src": column(table, "src", str.casefold),
    }
    for name in ("patient", "slide"):
        _refuse_two_splits(table, splits, name)
    _check_filters(table, wanted, values)
    left_out = _left_out(used, splits, wanted, values)
    if wanted.share < 1:
        _leave_out_patients(table, wanted.share, left_out)
    _log_left_out(table, left_out)
    return Rows(
        used=[reason == "" for reason in left_out],
        stains=[STAIN_CLASSES.index(name) for name in stains],
        organs=column(table, "organ", lambda text: name_of(text).casefold() or "unknown"),
        licences=values["licence"],
        mpp=column(table, "mpp_value", mpp_of),
    )


def _refuse_misnamed_columns(table: Table | Columns) -> None:
    for name, meant in _MISNAMED.items():
        if name in table.columns and meant not in table.columns:
            raise ConfigError(
                f"{table.file}: the column {name!r} is not read. Rename it to {meant!r}"
            )


def _check_filters(
    table: Table | Columns, wanted: Wanted, values: Mapping[str, Sequence[str]]
) -> None:
    """Raise ConfigError for a filter on a column or a value that the table lacks."""
    for setting, name, asked in wanted.asked():
        filter_ = f"data.{setting}=[{', '.join(getattr(wanted, setting))}]"
        if name not in table.columns:
            raise ConfigError(
                f"{filter_}: {table.file} has no column {name!r}. Add it, or ask for all rows:"
                f" data.{setting}=[]"
            )
        found = {n for value in set(values[name]) for n in _names(name, value)}
        if missing := [value for value in asked if value not in found]:
            listed = nearest(missing[0], found) or f"; there are: {', '.join(sorted(found)[:20])}"
            raise ConfigError(
                f"{filter_}: no row of {table.file} has {name} {missing[0]!r}{listed}"
            )


def _names(column_name: str, value: str) -> set[str]:
    """What a filter may ask for to get the rows of a value: a licence also by its class."""
    names = {value, licences.class_of(value)} if column_name == "licence" else {value}
    return {name.casefold() for name in names} - {""}


def _left_out(
    used: Sequence[bool],
    splits: Sequence[Split],
    wanted: Wanted,
    values: Mapping[str, Sequence[str]],
) -> list[str]:
    """Why each row is left out; "" for one that is used."""
    out = [
        "use says no" if not use else f"split {split.name}" if split.held_out else ""
        for use, split in zip(used, splits, strict=True)
    ]
    for setting, name, asked in wanted.asked():
        reason = f"not asked for by data.{setting}"
        matching = {v for v in set(values[name]) if not _names(name, v).isdisjoint(asked)}
        for i, value in enumerate(values[name]):
            if not out[i] and (value in matching) == (setting == "without"):
                out[i] = reason
    return out


def _leave_out_patients(table: Table | Columns, share: float, left_out: list[str]) -> None:
    """Leave out the rows of patients (of slides, where none is named) that are not in a share."""
    patients, slides = (
        column(table, name, name_of) if name in table.columns else [""] * len(left_out)
        for name in ("patient", "slide")
    )
    reason, inside = f"not in data.share={share:g}", dict[str, bool]()
    for i, name in enumerate(p or s for p, s in zip(patients, slides, strict=True)):
        if name not in inside:
            digest = hashlib.sha256(f"share {name.casefold()}".encode()).digest()
            inside[name] = int.from_bytes(digest[:8]) < share * 2**64
        if not left_out[i] and not inside[name]:
            left_out[i] = reason


def _log_left_out(table: Table | Columns, left_out: Sequence[str]) -> None:
    counts = Counter(reason for reason in left_out if reason)
    if counts:
        named = ", ".join(f"{count} ({reason})" for reason, count in counts.most_common())
        log.info("%s: %d of %d rows left out: %s", table.file, counts.total(), len(left_out), named)


def _refuse_two_splits(table: Table | Columns, splits: Sequence[Split], name: str) -> None:
    """Raise ConfigError for patients or slides that are in two splits.

    Rows without a name are not compared.
    """
    if name not in table.columns or "split" not in table.columns:
        return
    first: dict[str, Split] = {}
    found: dict[str, set[Split]] = {}
    typed: dict[str, str] = {}
    for text, split in zip(column(table, name, name_of), splits, strict=True):
        key = text.casefold() if name == "patient" else text
        if key and (before := first.setdefault(key, split)) != split:
            found.setdefault(key, {before}).add(split)
            typed.setdefault(key, text)
    both = sorted(key for key, parts in found.items() if _conflict(parts))
    if both:
        named = ", ".join(
            f"{typed[key]} ({' and '.join(sorted(part.name or 'none' for part in found[key]))})"
            for key in both[:5]
        )
        raise ConfigError(
            f"{table.file}: {len(both)} {name}s are in two splits: {named}. Give each {name} one"
            " split"
        )


def _conflict(splits: set[Split]) -> bool:
    """Two named splits, or a held-out one and rows without a split, which are trained on."""
    named = {split for split in splits if split.name}
    return len(named) > 1 or (len(splits) > 1 and any(split.held_out for split in named))


def normalise_shard_names(table: Table | Columns) -> None:
    """Rename "./a.tar" and "b/../a.tar" to "a.tar", in place.

    Two names of one shard would hide that its images are used twice.
    """
    if isinstance(table, Columns):
        table.changed("shard", _normalised)
        return
    for row in table.rows:
        row["shard"] = _normalised(row["shard"])


def _normalised(name: str) -> str:
    parts = name.split("/")
    return posixpath.normpath(name) if "." in parts or ".." in parts else name


def warn_of_differences(names: Iterable[str], values: Iterable[str], what: str, file: Path) -> None:
    """Log slides whose rows differ in a value of which a slide has one.

    Args:
        names: The slide of each row.
        values: The value of each row; "" where it has none.
        what: The values in the plural, for the message.
        file: The table.
    """
    first: dict[str, str] = {}
    differing = {
        name
        for name, value in zip(names, values, strict=True)
        if value and first.setdefault(name, value) != value
    }
    if differing:
        log.warning(
            "%s: the rows of %d slides name several %s (%s): the first row counts",
            file,
            len(differing),
            what,
            ", ".join(sorted(differing)[:5]),
        )


def digest_of(lines: list[str]) -> str:
    """sha256 of the sorted lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
