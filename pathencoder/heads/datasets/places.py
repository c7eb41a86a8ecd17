"""The folder of a public data set: where its files lie, and errors that say what was expected."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.datasets.public_set import PublicSet
from pathencoder.walk import expanded, natural, printable

_DEEPER = 2  # folders that unpacking may have added above the files
_SHOWN = 10
_PACKED = (".gz", ".zip", ".tar.gz", ".tgz", ".tar")


def root_of(folder: str | os.PathLike[str], public: PublicSet) -> Path:
    """The folder that holds the files of a set: the given one, or one up to two levels below it.

    Args:
        folder: As the user gave it; "~" is expanded.
        public: The set.

    Returns:
        The folder.

    Raises:
        ConfigError: There is none. The message says what was expected and what was found.
    """
    given = expanded(folder)
    if not given.is_dir():
        raise ConfigError(f"{printable(given)}: no such folder. {_download(public)}")
    for place in _below(given, _DEEPER):
        if any(next(place.glob(mark), None) is not None for mark in public.marks):
            return place
    raise ConfigError(
        f"{printable(given)} does not hold {public.title} as it is published.\n{expected(public)}"
        f"\nFound: {_contents(given)}{_packed(given)}\n{_download(public)}"
    )


def expected(public: PublicSet) -> str:
    """The layout of a set, for messages."""
    return "\n".join(["Expected:", *(f"  {line}" for line in public.layout)])


def required(files: Iterable[Path], root: Path, public: PublicSet) -> None:
    """Refuse a copy that lacks files.

    Args:
        files: Files or folders that a copy has.
        root: The folder of the set.
        public: The set.

    Raises:
        ConfigError: Some are missing. The message lists them and says what was expected.
    """
    missing = [path for path in files if not path.exists()]
    if not missing:
        return
    shown = [f"  {_relative(path, root)}{_unpack(path)}" for path in missing[:_SHOWN]]
    more = len(missing) - _SHOWN
    many = "1 file or folder is" if len(missing) == 1 else f"{len(missing):,} files are"
    raise ConfigError(
        "\n".join(
            [
                f"{public.title} in {printable(root)} is incomplete; {many} missing:",
                *shown,
                *([f"  and {more:,} more"] if more > 0 else []),
                expected(public),
                f"Unpack all archives, or download it again. {_download(public)}",
            ]
        )
    )


def within(root: Path, pattern: str) -> Iterator[Path]:
    """Files below a folder, or below the folders that unpacking each archive may have added."""
    yield from sorted(root.glob(pattern))
    yield from sorted(root.glob(f"*/{pattern}"))


def files_of(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, in natural order; hidden ones left out."""
    found = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    return sorted(found, key=lambda path: natural(Path(path.name)))


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """The folder and those below it, the upper ones first."""
    level = [folder]
    for _ in range(depth + 1):
        yield from level
        level = [inner for outer in level for inner in _folders(outer)]


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:  # without permission: nothing of the set is found there
        return []
    return [folder / name for name in sorted(names)]


def _contents(folder: Path) -> str:
    names = sorted(printable(path.name) for path in folder.iterdir())
    return listed(names) or "nothing"


def _packed(folder: Path) -> str:
    packed = [p.name for p in folder.iterdir() if p.name.lower().endswith(_PACKED)]
    return f"\nUnpack {listed(sorted(map(printable, packed)))} first" if packed else ""


def _unpack(path: Path) -> str:
    """Where an archive lies beside a missing file."""
    for suffix in _PACKED:
        packed = path.with_name(path.name + suffix)
        if packed.exists():
            return f" (unpack {printable(packed.name)})"
    return ""


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root) if path.is_relative_to(root) else path)


def _download(public: PublicSet) -> str:
    return f"Download: {public.homepage}"
