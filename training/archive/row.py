"""A manifest's row: one slide, what is known of it, and which columns a person may edit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.mpp import check_mpp
from training.data import licences
from training.data.manifest import STAIN_CLASSES
from training.data.values import is_used, name_of, nearest, one_of, split_of


def _text(text: str) -> str:
    return text


def _whole(text: str) -> int | None:
    """A number of bytes or pixels; spreadsheets and pandas write 12 as 12.0."""
    if not name_of(text):
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 2**63 or number != int(number):
        raise ValueError("a whole number is needed")
    return int(text) if text.isdecimal() else int(number)


def _mpp(text: str) -> float | None:
    if not name_of(text):
        return None
    try:
        return check_mpp(float(text.replace(",", ".")))
    except (ValueError, ConfigError):
        raise ValueError("micrometres per pixel are needed, from 0.01 to 100") from None


def _share(text: str) -> float | None:
    if not name_of(text):
        return None
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("a probability from 0 to 1 is needed")
    return number


def _stain_class(text: str) -> str:
    return one_of(STAIN_CLASSES)(text) or "unknown"


def _split(text: str) -> str:
    return split_of(text).name


def _place(text: str) -> str:
    """A place below a folder: a manifest of someone else must not write anywhere else."""
    if text.startswith(("/", "\\")) or ":" in text or ".." in text.replace("\\", "/").split("/"):
        raise ValueError("a relative path without '..' is needed")
    return text


def _column(read: Callable[[str], Any], default: Any, *, edit: bool = False) -> Any:
    return field(default=default, metadata={"read": read, "edit": edit})


@dataclass(frozen=True, slots=True)
class Row:
    """One slide. An empty text and None stand for "not known".

    Attributes:
        slide: Its name, once in a manifest.
        patient: A published code (TCGA-XX-0001) or a keyed hash; never a hospital's number.
        stain_class: he, ihc, special, cytology, mixed or unknown.
        stain: The stain or marker by its usual name ("H&E", "Ki-67", "PAS").
        stain_confidence: Probability that stain_class is right, 0..1.
        stain_from: Where it comes from: source, name, pixels, table.
        organ: In words.
        scanner: The format or the maker's name.
        mpp_value: Micrometres per pixel of full resolution.
        mpp_from: The property or tag that states it; "given" for a person's.
        width: In pixels.
        height: In pixels.
        licence: As training.data.licences writes it.
        split: train, val or test, by a hash of the patient.
        use: Whether it may be trained on.
        excluded: The evaluation sets that hold its patient or file.
        src: The source, as the command names it.
        source_id: Its name in the source; with `src` it identifies the row.
        file: Its place below the source's folder, and below the folder of a download.
        size: Bytes of all its files.
        checksum: What the source states: md5:..., etag:...
        sha256: Of its file; of several files, of their sorted list.
        release: The source's data release.
        problem: Why it cannot be used, in words.
        note: Free text of a person.
        edited: The columns that a person edited, which no later run changes; "organ@table" for one
            that a table stated, which only another table changes.
    """

    slide: str = _column(_text, "")
    patient: str = _column(name_of, "", edit=True)
    stain_class: str = _column(_stain_class, "unknown", edit=True)
    stain: str = _column(name_of, "", edit=True)
    stain_confidence: float | None = _column(_share, None)
    stain_from: str = _column(_text, "")
    organ: str = _column(name_of, "", edit=True)
    scanner: str = _column(name_of, "", edit=True)
    mpp_value: float | None = _column(_mpp, None, edit=True)
    mpp_from: str = _column(_text, "")
    width: int | None = _column(_whole, None)
    height: int | None = _column(_whole, None)
    licence: str = _column(licences.read, "", edit=True)
    split: str = _column(_split, "", edit=True)
    use: bool = _column(is_used, default=True, edit=True)
    excluded: str = _column(_text, "")
    src: str = _column(_text, "")
    source_id: str = _column(_text, "")
    file: str = _column(_place, "")
    size: int | None = _column(_whole, None)
    checksum: str = _column(_text, "")
    sha256: str = _column(_text, "")
    release: str = _column(_text, "")
    problem: str = _column(_text, "")
    note: str = _column(_text, "", edit=True)
    edited: str = _column(_text, "")

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the slide."""
        return self.src, self.source_id

    @property
    def edits(self) -> frozenset[str]:
        """The columns that a person edited."""
        return frozenset(name for name in self.edited.split() if "@" not in name)

    @property
    def stated(self) -> frozenset[str]:
        """The columns that a table stated, of those that nobody edited since."""
        names = (name.partition("@") for name in self.edited.split())
        return frozenset(name for name, at, _ in names if at)


FIELDS = dataclasses.fields(Row)
COLUMNS = tuple(f.name for f in FIELDS)
EDITABLE = tuple(f.name for f in FIELDS if f.metadata["edit"])
KINDS: dict[str, str] = {f.name: str(f.type) for f in FIELDS}  # "str", "float | None" ...


def as_text(value: str | float | None) -> str:
    """A value as a CSV holds it: "" for None, 1 and 0 for yes and no."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def nearest_column(name: str) -> str:
    """A hint at the column that was meant; "" where none is near."""
    return nearest(name, COLUMNS)
