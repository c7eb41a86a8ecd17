"""Atomic writes, and disk errors as StoreError with advice."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from pathencoder.errors import PathEncoderError, StoreError


class Mismatch(StoreError):
    """An existing output file that does not belong to this input, or is damaged.

    Unlike other StoreErrors it concerns one input, not the disk.
    """


@contextlib.contextmanager
def of_one_input() -> Iterator[None]:
    """Raise StoreErrors as Mismatch where a file is read that may be damaged: the disk is not."""
    try:
        yield
    except StoreError as error:
        raise Mismatch(str(error)) from error


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # more than the one letter of a drive
_ADVICE = {
    errno.ENOSPC: "the disk is full: make room, or choose another --out",
    errno.EDQUOT: "your quota is used up: make room, or choose another --out",
    errno.EROFS: "the file system is read-only: choose another --out",
    errno.EACCES: "no permission to write there: choose another --out",
    errno.EPERM: "no permission to write there: choose another --out",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another --out",
    errno.EEXIST: "a file, or a link to nothing, is in the way: choose another --out",
    errno.ENOENT: "no folder can be created there: choose another --out",
    errno.ELOOP: "a link in that path leads to itself: choose another --out",
}


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn disk errors inside the block into StoreError about `path`.

    Raises:
        Mismatch: The name is too long for the file system.
        StoreError: Any other error of the disk.
    """
    try:
        yield
    except PathEncoderError:  # says itself what happened; SlideError is an OSError, too
        raise
    # HDF5 reports a full disk as RuntimeError when it closes the file
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            raise Mismatch(f"cannot write {path}: {reason}") from error
        raise StoreError(
            f"cannot write {path}: {reason}. Finished work is kept; the same command resumes from"
            " there"
        ) from error


@contextlib.contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `final` when the block succeeds, and removed when not.

    The content is synced to disk before the rename.

    Raises:
        StoreError: The file cannot be written.
    """
    temporary = _temporary(final)
    with storing(final):
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, final)
            _sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder; an existing one is replaced.

    A folder cannot replace another in one step: a process that is killed between the two steps
    leaves no folder of that name.

    Raises:
        StoreError: The folder cannot be written.
    """
    temporary = _temporary(final)
    with storing(final):
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as stream:
                        os.fsync(stream.fileno())
            if final.is_dir():
                old = final.with_name(f".{final.name}.{os.getpid()}.old.incomplete")
                os.replace(final, old)
                os.replace(temporary, final)
                shutil.rmtree(old)
            else:
                os.replace(temporary, final)
            _sync_folder(final.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_incomplete(final: Path) -> None:
    """Remove what killed processes left of unfinished writes of a file or folder.

    Only the process that holds the lock of the file may do it.
    """
    for left in final.parent.glob(f".{glob.escape(final.name)}.[0-9]*.incomplete"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                left.unlink()


def make_folder(path: Path) -> Path:
    """Create a folder and its parents unless they exist, and check that it is writable.

    Returns:
        `path`.

    Raises:
        StoreError: The folder cannot be created or written into, or is a URL.
    """
    if _URL.match(os.fspath(path)):
        raise StoreError(
            f"{path}: a URL cannot be written to. Name a folder of this machine, and copy it then"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{os.getpid()}.probe"
        try:
            probe.write_bytes(b"")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot use the folder {path}: {_reason(error)}") from error
    return path


def _temporary(final: Path) -> Path:
    """A name that no other process and no other thread uses."""
    writer = f"{os.getpid()}-{threading.get_ident()}"
    return final.with_name(f".{final.name}.{writer}.incomplete")


def _reason(error: OSError | RuntimeError) -> str:
    """What is wrong, and what to do."""
    number = error.errno if isinstance(error, OSError) else None
    number = number or (errno.ENOSPC if "No space left" in str(error) else None)
    return _ADVICE.get(number or 0, f"{error}: check the disk, or choose another --out")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the system supports it (Windows cannot open a folder)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def give_usual_permissions(path: Path) -> None:
    """Give a file the permissions of files that `open` makes; safetensors makes private ones."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
