"""Read tables that people or spreadsheets wrote: CSV with commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pathencoder.errors import ConfigError
from pathencoder.walk import NEITHER, is_special

if TYPE_CHECKING:
    from _csv import Reader

_DELIMITERS = ",;\t"
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Table:
    """A table's rows as text.

    Attributes:
        file: Where it was read from.
        columns: Names of the columns, stripped and case-folded.
        rows: One dictionary per row, column to value; values are stripped, "" where empty.
        lines: The line of the file at which each row ends, for messages.
        delimiter: "," or ";" or a tab.
    """

    file: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]
    delimiter: str

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.file}, line {self.lines[row]}"

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Pairs of file and line, and the row."""
        return ((self.where(i), row) for i, row in enumerate(self.rows))


def read_table(
    file: str | Path, required: Sequence[str] = (), *, last_is_text: bool = False
) -> Table:
    """Read a table with a header line.

    A byte order mark is skipped (UTF-8 and UTF-16, as spreadsheets write them). The delimiter is
    the most frequent of comma, semicolon and tab in the header line. Empty lines are skipped.

    Args:
        file: The file.
        required: Columns that must be present.
        last_is_text: The last column is a remark, which may hold the delimiter without quotes.

    Returns:
        The table.

    Raises:
        ConfigError: The file cannot be read or is not text, a required column is missing, a column
            is repeated, or a row has more values than the header. The message names the line.
    """
    stream = stream_table(file, required, last_is_text=last_is_text)
    rows, lines = [], []
    for line, values in stream.rows:
        rows.append(dict(zip(stream.columns, values, strict=True)))
        lines.append(line)
    return Table(stream.file, stream.columns, rows, lines, stream.delimiter)


@dataclass(frozen=True)
class TableStream:
    """A table that is read row by row.

    Attributes:
        file: Where it is read from.
        columns: As in Table.
        delimiter: As in Table.
        rows: The line at which each row ends, and its values: stripped, one for each column.
            Raises ConfigError as `read_table` does.
    """

    file: Path
    columns: tuple[str, ...]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]


def stream_table(
    file: str | Path, required: Sequence[str] = (), *, last_is_text: bool = False
) -> TableStream:
    """The same table, whose rows are not kept: a manifest may have millions.

    Args:
        file: The file.
        required: Columns that must be present.
        last_is_text: As for `read_table`.

    Returns:
        The table, of which the header has been read.

    Raises:
        ConfigError: As `read_table`.
    """
    path = Path(file)
    data, encoding = _data(path)
    stream = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    delimiter = _delimiter(stream)
    reader = csv.reader(stream, delimiter=delimiter)
    with _readable(path, reader):
        columns = _header(path, next(reader, []), required)
    mark = delimiter if last_is_text else None
    return TableStream(path, columns, delimiter, _rows(path, columns, reader, mark))


def number(text: str, delimiter: str = ",") -> float:
    """Parse a number as spreadsheets write it, with a decimal comma unless that is the delimiter.

    Args:
        text: The value.
        delimiter: Of the table.

    Returns:
        The number.

    Raises:
        ValueError: The text is not a number.
    """
    if "_" in text:  # Python's own digit separator: 0_25 would be 25
        raise ValueError(f"could not convert {text!r} to a number")
    return float(text if delimiter == "," else text.replace(",", "."))


def _data(path: Path) -> tuple[bytes, str]:
    """The bytes of a text file and their encoding."""
    if is_special(path):
        raise ConfigError(f"{path} cannot be read: {NEITHER}. Save the table as a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        binary = "\0" in data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 text. Save the table as CSV in UTF-8"
        ) from error
    if binary:
        raise ConfigError(f"{path} holds binary data, not a table. Save it as CSV in UTF-8")
    return data, encoding


def _delimiter(stream: TextIO) -> str:
    """The most frequent delimiter of the first line with text; a comma by default."""
    header = next((line for line in stream if line.strip()), "")
    stream.seek(0)
    return max(_DELIMITERS, key=lambda mark: (header.count(mark), -_DELIMITERS.index(mark)))


def _header(path: Path, values: Sequence[str], required: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(value.strip().casefold() for value in values)
    while columns and not columns[-1]:  # a delimiter at the end of every line
        columns = columns[:-1]
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise ConfigError(
            f"{path}: the header has the column {twice[0]!r} twice. Give each column a unique name"
        )
    if missing := [name for name in required if name.casefold() not in columns]:
        found = ", ".join(columns) or "nothing"
        raise ConfigError(
            f"{path}: the header line lacks the column {missing[0]!r}; it has {found}. Add the"
            " column"
        )
    return columns


def _rows(
    path: Path, columns: tuple[str, ...], reader: Reader, mark: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Rows with text, and the line at which each ends; `mark` may be in the last column."""
    width = len(columns)
    with _readable(path, reader):
        for values in reader:
            stripped = list(map(str.strip, values))
            if any(stripped):
                if mark is not None and len(stripped) > width:
                    stripped[width - 1 :] = [mark.join(values[width - 1 :]).strip()]
                if len(stripped) != width:
                    stripped = _fitted(f"{path}, line {reader.line_num}", stripped, width)
                yield reader.line_num, stripped


@contextlib.contextmanager
def _readable(path: Path, reader: Reader) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ConfigError(
            f"{path}, line {reader.line_num}: {error}. Save the table as CSV again"
        ) from error


def _fitted(where: str, values: list[str], width: int) -> list[str]:
    """The values of a row, padded or cut to the number of columns."""
    if any(values[width:]):
        raise ConfigError(
            f"{where}: {len(values)} values, but the header has {width} columns. Put values that"
            " contain the delimiter into double quotes"
        )
    return values[:width] + [""] * (width - len(values))
