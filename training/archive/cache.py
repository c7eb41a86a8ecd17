"""What was read from each slide's files, in a file that grows line by line.

A run that is killed loses the lines that the system had not taken yet; the next run reads those
slides again, and no other. It lies beside the manifest, and holds times of files: not for
publication.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

from pathencoder.files import storing, whole_file
from training.archive.facts import Facts

_NAMES = tuple(f.name for f in dataclasses.fields(Facts))
Key = tuple[str, str]  # src and source_id


def cache_of(manifest: Path) -> Path:
    """The cache beside a manifest: .NAME.parquet.facts.jsonl."""
    return manifest.with_name(f".{manifest.name}.facts.jsonl")


class Cache:
    """The facts of slides, kept on disk. A context manager.

    Args:
        file: Its file; one that is damaged counts as far as it can be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._facts: dict[Key, Facts] = {}
        self._lines = 0
        self._stream: TextIOWrapper | None = None

    def __enter__(self) -> Cache:
        with storing(self._file):
            whole = self._read()
            self._stream = self._file.open("a", encoding="utf-8")
            if not whole:
                self._stream.write("\n")  # ends the line that was cut off
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None

    def get(self, key: Key, size: int, modified: int, *, hashed: bool, look: bool) -> Facts | None:
        """The facts of a slide whose files have not changed since; None where it must be read.

        Args:
            key: Of the slide.
            size: Bytes of its files now.
            modified: Their latest change now.
            hashed: The sha256 is needed.
            look: Its colours must have been looked at.
        """
        found = self._facts.get(key)
        if found is None or (found.size, found.modified) != (size, modified):
            return None
        if hashed and not found.sha256 and not found.problem:
            return None
        return None if look and not found.looked and not found.problem else found

    def add(self, found: Iterable[tuple[Key, Facts]]) -> None:
        """Keep the facts of slides, handed to the system at once.

        Raises:
            StoreError: The disk is full.
        """
        assert self._stream is not None
        with storing(self._file):
            for key, facts in found:
                self._facts[key] = facts
                self._stream.write(_line(key, facts))
                self._lines += 1
            self._stream.flush()

    def compact(self) -> None:
        """Write one line for each slide where many are out of date."""
        if self._lines < 2 * len(self._facts) + 1000:
            return
        with whole_file(self._file) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(key, facts) for key, facts in self._facts.items())

    def _read(self) -> bool:
        """Read the lines; whether the last one is whole."""
        if not self._file.exists():
            return True
        last = "\n"
        with self._file.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                last = line
                self._lines += 1
                with contextlib.suppress(ValueError, TypeError):
                    src, source_id, *values = json.loads(line)
                    if len(values) == len(_NAMES):
                        self._facts[src, source_id] = Facts(*values)
        return last.endswith("\n")


def _line(key: Key, facts: Facts) -> str:
    values: list[Any] = [getattr(facts, name) for name in _NAMES]
    return json.dumps([*key, *values], separators=(",", ":")) + "\n"
