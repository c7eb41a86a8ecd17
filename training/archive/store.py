"""A manifest on disk: NAME.parquet for programs and NAME.csv for people, with the same rows.

The Parquet file records the sha256 of the CSV that was written with it. So a later read knows which
of the two a person has edited since, takes those edits, and finds rows that were removed. The CSV
is written first: a process that is killed between the two leaves a CSV that counts as edited and
holds everything that the Parquet file was to have. A program that writes the Parquet file anew
(pandas) drops the record: .NAME.parquet.json has it, too.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.files import whole_file
from training.archive.checked import Texts, Where, edited, problems_between, refuse, rows_of
from training.archive.row import COLUMNS, KINDS, Row, as_text
from training.data.columns import read_columns

_FORMAT = 1
_META = b"pathencoder.manifest"


@dataclass(frozen=True)
class Manifest:
    """A manifest.

    Attributes:
        rows: In the order of src and source_id.
        shares: Split -> its share of the patients.
        edits: The number of rows that a person changed since the tool wrote them.
        key: The fingerprint of the key that gave the patients' codes; "" where none is recorded.
    """

    rows: list[Row]
    shares: dict[str, float]
    edits: int = 0
    key: str = ""


def csv_of(file: Path) -> Path:
    """The CSV beside a manifest."""
    return file.with_suffix(".csv")


def is_there(file: Path) -> bool:
    """Whether there is a manifest: the Parquet file, or the CSV alone."""
    return file.exists() or csv_of(file).exists()


def check_name(file: Path) -> None:
    """Raise ConfigError where a manifest's name does not end in .parquet."""
    if file.suffix != ".parquet":
        raise ConfigError(f"{file}: the name of a manifest ends in .parquet (the CSV lies beside)")


def write_manifest(file: Path, manifest: Manifest) -> None:
    """Write both files, each whole or not at all.

    Args:
        file: NAME.parquet, in an existing folder.
        manifest: What to write. The same rows give the same bytes.

    Raises:
        StoreError: A file cannot be written. An older one is unchanged.
        MissingExtra: pyarrow is not installed.
    """
    pa, pq = arrow()
    rows = sorted(manifest.rows, key=lambda row: row.key)
    text = _csv_text(rows)
    about = {"format": _FORMAT, "csv_sha256": _digest(text), "shares": manifest.shares}
    if manifest.key:
        about["key"] = manifest.key
    fields = [
        pa.field(name, _types(pa)[KINDS[name]], nullable="None" in KINDS[name]) for name in COLUMNS
    ]
    schema = pa.schema(fields, metadata={_META: json.dumps(about, sort_keys=True).encode()})
    arrays = [
        pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in fields
    ]
    with whole_file(csv_of(file)) as temporary:
        temporary.write_bytes(text)
    with whole_file(file) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")
    with whole_file(_record(file)) as temporary:
        temporary.write_text(json.dumps(about), encoding="utf-8")


def read_manifest(file: Path, *, accept_removed: bool = False) -> Manifest:
    """Read a manifest with what a person edited in one of its two files.

    Args:
        file: NAME.parquet.
        accept_removed: Rows that a person removed come back with use=0 instead of a problem.

    Returns:
        The manifest.

    Raises:
        ConfigError: Neither file exists, both were edited, or something is wrong: the message lists
            all problems.
        MissingExtra: pyarrow is not installed.
    """
    check_name(file)
    if not is_there(file):
        raise ConfigError(f"{file}: no such manifest. Make it: python -m training.archive manifest")
    table, about = csv_of(file), _about(file)
    if not file.exists():  # the CSV alone counts as it is
        rows, problems, where = _csv(table)
        refuse(table, problems + problems_between(rows, where))
        return Manifest(rows, _shares(about), key=_key(about))
    texts, count = _parquet(file)
    rows, problems = rows_of(texts, count, _place(file))
    wrote = str(about.get("csv_sha256", ""))
    parquet_edited = bool(problems) or _digest(_csv_text(rows)) != wrote
    csv_edited = table.exists() and _digest(table.read_bytes()) != wrote
    changes, where = 0, _place(file)
    if csv_edited and parquet_edited:
        raise ConfigError(
            f"{file} and {table.name} were both edited since they were written: undo the edits of"
            " one of them, or remove that file (the other one then counts as it is)"
        )
    if table.exists() and (csv_edited or parquet_edited):
        base, now = rows, rows
        in_csv, csv_problems, in_csv_at = _csv(table)
        if csv_edited:
            now, problems, where = in_csv, csv_problems, in_csv_at
        else:
            base = in_csv
        rows, more, changes = edited(base, now, accept_removed=accept_removed)
        problems += more
    problems += problems_between(rows, where if not changes else lambda i: rows[i].slide)
    refuse(table if csv_edited else file, problems)
    return Manifest(rows, _shares(about), changes, _key(about))


def _about(file: Path) -> dict[str, Any]:
    """What was recorded when the manifest was written; empty where nothing is known."""
    _, pq = arrow()
    held: bytes | None = None
    with contextlib.suppress(Exception):  # damaged: the reader of the rows says so
        held = (pq.read_schema(file).metadata or {}).get(_META)
    if held is None and _record(file).exists():
        held = _record(file).read_bytes()
    about: dict[str, Any] = json.loads(held) if held else {}
    if about and about.get("format") != _FORMAT:
        raise ConfigError(f"{file}: written by another version of this tool: make it again")
    return about


def _record(file: Path) -> Path:
    return file.with_name(f".{file.name}.json")


def _shares(about: dict[str, Any]) -> dict[str, float]:
    shares = about.get("shares")
    return shares if isinstance(shares, dict) else {}


def _key(about: dict[str, Any]) -> str:
    return str(about.get("key", ""))


def _place(file: Path) -> Where:
    return lambda i: f"{file.name}, row {i + 1}"


def _csv(table: Path) -> tuple[list[Row], list[str], Where]:
    found = read_columns(table, blocks=("source_id", "file", "sha256", "slide"))
    texts: Texts = {name: list(found.texts(name)) for name in found.columns}
    where: Where = lambda i: f"{table.name}, line {found.lines[i]}"  # noqa: E731
    rows, problems = rows_of(texts, len(found), where)
    return rows, problems, where


def _parquet(file: Path) -> tuple[Texts, int]:
    """Every value as text, and the number of rows."""
    pa, pq = arrow()
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{file}: not a Parquet file that can be read ({error})") from error
    texts = {
        name: [as_text(_plain(value)) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return texts, table.num_rows


def _plain(value: object) -> Any:
    """A value without NaN, which pandas writes where a number is missing."""
    return None if isinstance(value, float) and value != value else value


def _csv_text(rows: Sequence[Row]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([as_text(getattr(row, name)) for name in COLUMNS] for row in rows)
    return stream.getvalue().encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _types(pa: Any) -> dict[str, Any]:
    return {
        "str": pa.string(),
        "bool": pa.bool_(),
        "int | None": pa.int64(),
        "float | None": pa.float64(),
    }


def arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("archive", "A manifest in Parquet") from error
    return pyarrow, pyarrow.parquet
