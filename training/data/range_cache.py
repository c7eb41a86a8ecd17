"""A cache of tiles that were fetched over a network: one SQLite file, shared by all processes."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_SECONDS = 10.0  # to wait for another process that writes
_FREED = 0.1  # of the tiles, the oldest ones, when the budget is reached
_AT_ONCE = 500  # keys in a query


class RangeCache:
    """Bytes by key. What goes wrong with it is logged once, and it is then no longer used.

    Args:
        file: The SQLite file.
        budget: Bytes that it may take on the disk.
    """

    def __init__(self, file: Path, budget: int) -> None:
        self._file, self._budget = file, budget
        self._lock, self._process = threading.Lock(), -1
        self._base: sqlite3.Connection | None = None

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The bytes of those keys that are in the cache."""

        def act(base: sqlite3.Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for first in range(0, len(keys), _AT_ONCE):
                some = keys[first : first + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, data FROM tiles WHERE key IN ({marks})"
                found.update(base.execute(query, some))
            return found

        return self._do(act) or {}

    def put(self, new: Mapping[str, bytes]) -> None:
        """Keep bytes; the oldest are removed where there would be too many."""

        def act(base: sqlite3.Connection) -> None:
            with base:  # one transaction
                base.executemany("INSERT OR IGNORE INTO tiles VALUES (?, ?)", new.items())
                if self._size(base) > self._budget:
                    count = base.execute("SELECT count(*) FROM tiles").fetchone()[0]
                    base.execute(
                        "DELETE FROM tiles WHERE rowid IN"
                        " (SELECT rowid FROM tiles ORDER BY rowid LIMIT ?)",
                        (1 + int(_FREED * count),),
                    )

        if new:
            self._do(act)

    @staticmethod
    def _size(base: sqlite3.Connection) -> int:
        """Bytes in use."""
        pages, free, page = (
            base.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def _do(self, act: Callable[[sqlite3.Connection], T]) -> T | None:
        """Act on the database; None where that fails or has failed before."""
        with self._lock:
            try:
                if self._process != os.getpid():  # SQLite's connections do not survive a fork
                    self._process, self._base = os.getpid(), None
                    self._base = self._opened()
                return None if self._base is None else act(self._base)
            except (sqlite3.Error, OSError) as error:
                if "locked" not in str(error):  # another process is writing
                    log.warning("the cache %s is not used: %s. Remove the file", self._file, error)
                    self._base = None
                return None

    def _opened(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self._file, timeout=_SECONDS, check_same_thread=False)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("CREATE TABLE IF NOT EXISTS tiles (key TEXT PRIMARY KEY, data BLOB)")
        return base

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeCache, (self._file, self._budget)
