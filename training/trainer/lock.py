"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.files import make_folder
from pathencoder.locks import Busy, Lock
from training.files import write_text

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while the block runs; the folder is created if need be.

    Raises:
        ConfigError: Another process holds the lock. The message names it.
        StoreError: The folder cannot be written.
    """
    make_folder(folder)
    # The name of the process is in a separate file: some versions of filelock empty the lock
    # file when they try to lock it.
    holder = folder / ".lock.holder"
    try:
        lock = Lock(folder / ".lock", "")
    except Busy:
        raise ConfigError(
            f"{folder} is in use by another run ({_read(holder)}): wait for it, or choose another"
            " out="
        ) from None
    try:
        if lock.held:
            write_text(holder, _this_process())
        else:
            log.warning(
                "%s is on a file system without locks: make sure that no other run writes there",
                folder,
            )
        yield
    finally:
        if lock.held:
            holder.unlink(missing_ok=True)
        lock.release()


def _this_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip() or "an unknown process"
    except OSError:
        return "an unknown process"
