"""What a runtime is: it opens a file, and then maps normalised images to embeddings."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, MissingExtra

# normalised float32 [N, 3, H, W], contiguous, to float32 [N, D]; any number of threads may call it
Graph: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_opened: dict[tuple[object, ...], Graph] = {}
_lock = threading.Lock()
_KEPT = 8  # files that stay open


@dataclass(frozen=True)
class Engine:
    """A runtime.

    Attributes:
        name: As `encode` takes it.
        extra: That installs it.
        module: Its Python module.
        suffixes: Of the files that it runs, the preferred one first.
        read: Opens a file, to run on so many threads of the CPU.
    """

    name: str
    extra: str
    module: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, int], Graph]

    @property
    def is_installed(self) -> bool:
        """Whether its library is there."""
        return importlib.util.find_spec(self.module) is not None

    def open(self, file: Path, threads: int) -> Graph:
        """Open a file; one that is open already is shared.

        Args:
            file: The file.
            threads: Of the CPU that a call uses.

        Raises:
            MissingExtra: The library is not installed.
            ConfigError: It cannot run the file.
        """
        if not self.is_installed:
            raise MissingExtra.of(self.extra, f"runtime={self.name!r}")
        state = file.stat()
        # after a fork the threads of a session that was opened before it do not exist
        place = os.path.abspath(file)
        key = (os.getpid(), self.name, place, state.st_size, state.st_mtime_ns, threads)
        with _lock:
            graph = _opened.pop(key, None) or self._read(file, threads)
            _opened[key] = graph  # the last one used comes last
            # those of a parent stay: their ends would wait for threads that do not exist here
            own = [one for one in _opened if one[0] == key[0]]
            for one in own[:-_KEPT]:
                del _opened[one]
            return graph

    def _read(self, file: Path, threads: int) -> Graph:
        try:
            return self.read(file, threads)
        # each library has errors of its own, which it does not document
        except Exception as error:
            raise ConfigError(
                f"{self.name} cannot run {file} ({_first_line(error)}): export it again with"
                " `pathencoder export`, or install a newer version of that library"
            ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _forget_lock() -> None:
    """A thread of the parent may have held the lock when it forked."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
