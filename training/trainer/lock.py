"""One run at a time in a folder.

A lock that the operating system lets go of when its process ends, however it ends.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pathencoder.errors import ConfigError

log = logging.getLogger(__name__)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside: no other process can hold the same folder.

    Raises ConfigError naming the process that does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                log.warning(
                    "%s cannot be locked (%s): see to it that one run alone writes there",
                    folder,
                    error,
                )
            else:
                file.seek(0)
                holder = file.read().strip() or "an unknown process"
                raise ConfigError(
                    f"{folder} is in use by another run ({holder}): wait for it, or give another"
                    " out="
                ) from None
        else:
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {socket.gethostname()} since"
                f" {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
            )
            file.flush()
        yield


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 30)  # beyond the text, which others must be able to read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
