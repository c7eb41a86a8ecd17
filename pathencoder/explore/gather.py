"""The slides of a page: from the files that the user named to tiles with pictures under them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.explore.data import Laid
from pathencoder.explore.provenance import check_comparable
from pathencoder.features.containers import feature_files
from pathencoder.pictures.ground import Ground, check_slide, ground_or_white
from pathencoder.pictures.located import Tiles, read_tiles

_LONGEST, _LEAST = 4096, 512  # pixels of the longer side of a slide's picture


@dataclass
class Gathered:
    """The slides of a page, and the files that could not be used with the reason."""

    slides: list[Laid] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def gather(
    files: Sequence[Path],
    folder: Path | None = None,
    *,
    on_slide: Callable[[Tiles], None] = lambda _: None,
) -> Gathered:
    """Read feature files and the slides that they were made from.

    Args:
        files: Feature files, or folders of them; one that is named twice counts once.
        folder: Where the slides are. None: where they were when they were encoded.
        on_slide: Called with the tiles of a slide before its picture is made.

    Returns:
        The slides that could be read, in order.

    Raises:
        ConfigError: Two files cannot be compared, or none can be used.
    """
    found, tiles = Gathered(), list[Tiles]()
    for file in expanded(files):
        try:
            tiles.append(read_tiles(file))
        except PathEncoderError as error:
            found.failed.append((file, str(error)))
    if not tiles:
        reasons = "; ".join(reason for _, reason in found.failed)
        raise ConfigError(f"there is nothing to show: {reasons or 'no feature files'}")
    check_comparable(tiles)
    where = None if folder is None else _paths_by_name(folder)
    longest = max(_LEAST, int(_LONGEST / len(tiles) ** 0.5))
    for one in tiles:
        on_slide(one)
        found.slides.append(Laid(*_under(one, folder, where, longest)))
    return found


def expanded(files: Sequence[Path]) -> list[Path]:
    """Files, with the feature files of folders (and of a folder h5_files in them), each once."""
    every: dict[str, Path] = {}
    for file in files:
        for one in feature_files(file) if file.is_dir() else [file]:
            every.setdefault(os.path.abspath(one), one)
    return list(every.values())


def _under(
    tiles: Tiles, folder: Path | None, where: dict[str, list[Path]] | None, longest: int
) -> tuple[Tiles, Ground]:
    """The tiles and the picture under them."""
    if where is None:
        return ground_or_white(tiles, None, longest=longest)
    named = where.get(tiles.slide) or where.get(tiles.file.stem) or []
    slide = next((path for path in named if _is_of(tiles, path)), None)
    if slide is None and named:
        slide = named[0]  # refused with the reason
    if slide is not None:
        return ground_or_white(tiles, slide, longest=longest)
    laid, ground = ground_or_white(tiles, None, longest=longest)
    if ground.slide is None:
        note = f"the slide is not shown: {tiles.slide} is not in {folder}"
        ground = Ground(ground.image, ground.origin, ground.scale, mpp=ground.mpp, notes=(note,))
    return laid, ground


def _is_of(tiles: Tiles, slide: Path) -> bool:
    try:
        check_slide(tiles, slide)
    except PathEncoderError:
        return False
    return True


def _paths_by_name(folder: Path) -> dict[str, list[Path]]:
    """The files and folders below a folder, by name and by name without suffix.

    Raises:
        ConfigError: It is not a folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of slides")
    found: dict[str, list[Path]] = {}
    for parent, folders, files in os.walk(folder):
        for name in sorted([*files, *folders]):
            path = Path(parent, name)
            for key in {name, path.stem}:
                found.setdefault(key, []).append(path)
    return found
