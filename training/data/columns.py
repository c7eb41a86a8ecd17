"""A table of millions of rows, column by column: some bytes a row instead of a kilobyte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from pathencoder.tables import stream_table

T = TypeVar("T")

_CHUNK = 8192  # rows


class Texts(Sequence[str]):
    """Texts in one block of bytes.

    Args:
        data: All of them in UTF-8, one after the other.
        ends: int64 [texts], where each ends.
    """

    def __init__(self, data: bytes, ends: np.ndarray) -> None:
        self._data, self._ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The texts of an iterable."""
        block, left = _Block(), iter(texts)
        while chunk := list(islice(left, _CHUNK)):
            block.add(chunk)
        return block.texts()

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index if index >= 0 else index + len(self)
        if not 0 <= i < len(self):
            raise IndexError(index)
        start = int(self._ends[i - 1]) if i else 0
        return self._data[start : int(self._ends[i])].decode()

    def __iter__(self) -> Iterator[str]:
        return self.take(np.arange(len(self)))

    def lengths(self) -> np.ndarray:
        """int64 [texts]: bytes of each."""
        return np.diff(self._ends, prepend=0)

    def take(self, indices: np.ndarray) -> Iterator[str]:
        """The texts at some places, in this order."""
        return (data.decode() for data in self._take(indices))

    def padded(self) -> np.ndarray:
        """Bytes [texts], of one length: their order is that of the texts."""
        out = np.empty(len(self), f"S{max(1, int(self.lengths().max(initial=0)))}")
        for first in range(0, len(self), _CHUNK):
            some = np.arange(first, min(first + _CHUNK, len(self)))
            out[some] = list(self._take(some))
        return out

    def _take(self, indices: np.ndarray) -> Iterator[bytes]:
        for first in range(0, len(indices), _CHUNK):
            some = indices[first : first + _CHUNK]
            starts = np.where(some > 0, self._ends[some - 1], 0)
            for start, end in zip(starts.tolist(), self._ends[some].tolist(), strict=True):
                yield self._data[start:end]


def digest_of_texts(padded: np.ndarray) -> str:
    """sha256 of texts in order, a line each, as `digest_of` makes it.

    Args:
        padded: Texts.padded().
    """
    seen, padded = hashlib.sha256(), np.sort(padded)
    for first in range(0, len(padded), _CHUNK):
        lines = b"\n".join(padded[first : first + _CHUNK].tolist())
        seen.update(lines if first == 0 else b"\n" + lines)
    return seen.hexdigest()


@dataclass(frozen=True)
class Columns:
    """A table by columns.

    Attributes:
        file: Where it was read from.
        columns: Names of the columns.
        lines: int64 [rows], the line of the file at which each row ends.
        codes: Column -> int32 [rows], index into its values.
        values: Column -> its different values.
        blocks: Column of which nearly all values differ -> the value of each row.
    """

    file: Path
    columns: tuple[str, ...]
    lines: np.ndarray
    codes: dict[str, np.ndarray]
    values: dict[str, list[str]]
    blocks: dict[str, Texts]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.file}, line {self.lines[row]}"

    def get(self, row: int, name: str) -> str:
        """A value; "" where there is no such column."""
        if name in self.blocks:
            return self.blocks[name][row]
        return self.values[name][self.codes[name][row]] if name in self.codes else ""

    def texts(self, name: str) -> Iterable[str]:
        """The values of a column, row by row."""
        return self.blocks[name] if name in self.blocks else self.some(name, slice(None))

    def some(self, name: str, rows: np.ndarray | slice) -> list[str]:
        """The values of some rows; "" where there is no such column."""
        codes = self.codes.get(name, np.zeros(len(self), np.int8))[rows]
        return list(map(self.values.get(name, [""]).__getitem__, codes.tolist()))

    def changed(self, name: str, change: Callable[[str], str]) -> None:
        """Change the values of a column, in place."""
        new: dict[str, int] = {}
        of = [new.setdefault(change(value), len(new)) for value in self.values[name]]
        self.codes[name] = np.array(of, np.int32)[self.codes[name]]
        self.values[name] = list(new)


def read_columns(file: Path, required: Sequence[str] = (), blocks: Sequence[str] = ()) -> Columns:
    """Read a table, as `read_table` does.

    Args:
        file: The file.
        required: Columns that must be present.
        blocks: Columns of which nearly all values differ.

    Returns:
        The table.

    Raises:
        ConfigError: As `read_table`.
    """
    stream = stream_table(file, required)
    known = {name: _Codes() for name in stream.columns if name not in blocks}
    codes: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in known}
    lines, texts = [np.zeros(0, np.int64)], {name: _Block() for name in blocks}
    while chunk := list(islice(stream.rows, _CHUNK)):
        lines.append(np.fromiter((line for line, _ in chunk), np.int64, len(chunk)))
        for name, column in zip(
            stream.columns, zip(*(v for _, v in chunk), strict=True), strict=True
        ):
            if name in known:
                of = map(known[name].__getitem__, column)
                codes[name].append(np.fromiter(of, np.int32, len(column)))
            else:
                texts[name].add(column)
    return Columns(
        stream.file,
        stream.columns,
        np.concatenate(lines),
        {name: np.concatenate(parts) for name, parts in codes.items()},
        {name: list(values) for name, values in known.items()},
        {name: block.texts() for name, block in texts.items()},
    )


class _Codes(dict[str, int]):
    """Numbers for texts in the order in which they come."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, len(self))


class _Block:
    """Texts that are added in chunks."""

    def __init__(self) -> None:
        self._data, self._lengths = bytearray(), [np.zeros(0, np.int64)]

    def add(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self._data += b"".join(encoded)
        self._lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))

    def texts(self) -> Texts:
        return Texts(bytes(self._data), np.cumsum(np.concatenate(self._lengths)))
