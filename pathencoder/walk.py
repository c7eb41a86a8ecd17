"""List the files of a folder.

Links to folders are followed, loops are detected, hidden files are left out, and everything that is
left out is named. A file is identified by the path that the user typed: links are not resolved.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# two letters or more: "C:/" is a drive of Windows
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^/]")
_WINDOWS = re.compile(r"\\|(?:^|/)[A-Za-z]:/")  # "tiles\a.png", "C:/tiles/a.png"
NEITHER = "neither a file nor a folder, but a pipe, a socket or a device"


@dataclass(frozen=True)
class LeftOut:
    """Something below a folder that is not among its files.

    Attributes:
        path: Where it is, below the folder as the user typed it.
        reason: Why it was left out, as text.
        unread: It may be or hold files, which cannot be seen now.
    """

    path: Path
    reason: str
    unread: bool = False


@dataclass(frozen=True)
class Walk:
    """The files below a folder.

    Attributes:
        files: Every file, in natural order (tile2 before tile10), each path beginning with the
            folder as it was given.
        left_out: Loops of links, links to nothing, pipes and devices, folders that cannot be read.
            Hidden files and folders (names that begin with a dot) are only counted.
        hidden: Number of hidden files and folders that were left out.
    """

    files: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    hidden: int = 0


def walk(folder: str | os.PathLike[str]) -> Walk:
    """List every file below a folder.

    Links to files and folders are followed and keep the names of the links. A linked folder that
    contains itself is entered once. Nothing is opened.

    Args:
        folder: An existing folder.

    Returns:
        Files in natural order, and what was left out.
    """
    root = Path(folder)
    found, left_out, hidden = [], list[LeftOut](), 0
    for entry in _entries(root, ()):
        if isinstance(entry, LeftOut):
            left_out.append(entry)
        elif entry is None:
            hidden += 1
        else:
            found.append(entry)
    found.sort(key=lambda path: natural(path.relative_to(root)))
    return Walk(found, left_out, hidden)


def natural(path: Path) -> tuple[list[list[str | int]], str]:
    """A sort key: numbers inside names compare as numbers, case only breaks ties."""
    parts: list[list[str | int]] = [
        [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", part.casefold())]
        for part in path.parts
    ]
    return parts, path.as_posix()


def printable(name: str | os.PathLike[str]) -> str:
    r"""A name as valid Unicode text, for keys, messages, tables and names of outputs.

    File systems allow any bytes in a name. Python represents bytes that are not UTF-8 as lone
    surrogates, which cannot be printed, stored or encoded; here they become ``\xNN``.

    Args:
        name: A name or a path.

    Returns:
        The same text where it is valid, else with every undecodable byte escaped.
    """
    text = os.fspath(name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with "~" and "~user" as folders of users; of no user, "~" begins a usual name.

    `Path.expanduser` raises RuntimeError for such names, "~$slide.png" for example.
    """
    return Path(os.path.expanduser(path))


def no_such(what: str, path: str | os.PathLike[str]) -> str:
    """What an error says of a path where nothing is; of a URL or a path of Windows, what to do.

    Args:
        what: What was looked for, as "file" or "folder or table".
        path: The path.
    """
    text = os.fspath(path)
    advice = ""
    if _URL.match(text):
        advice = " (URLs are read of slides alone: download it first)"
    elif os.name != "nt" and _WINDOWS.search(text):
        advice = " (backslashes and drive letters are not of paths on this system: write a/b.png)"
    return f"no such {what}{advice}"


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pipe, a socket or a device; opening or reading one may never return."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _entries(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path | LeftOut | None]:
    """Files below a folder, what was left out, and None for every hidden entry.

    `above` holds the identities (device, inode) of the parent folders.
    """
    try:
        identity = _identity(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield LeftOut(folder, f"the folder cannot be read ({error.strerror or error})", unread=True)
        return
    if identity in above:
        yield LeftOut(folder, "a link to a folder that contains it: entered once only")
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            yield None
        elif _is_folder(entry):
            yield from _entries(path, (*above, identity))
        elif _is_file(entry):
            yield path
        elif is_special(path):
            yield LeftOut(path, NEITHER)
        elif entry.is_symlink():
            yield LeftOut(path, f"a link to nothing ({printable(os.readlink(path))})", unread=True)
        else:  # a network disk that does not answer, or removed at this moment
            yield LeftOut(path, "cannot be read", unread=True)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
