"""A folder per class: ROOT/CLASS/..., or ROOT/train/CLASS/... with ROOT/val and ROOT/test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset, split_name
from pathencoder.heads.data.pairs import is_of_images, is_of_labels
from pathencoder.images import SUFFIXES
from pathencoder.walk import natural, printable, walk

_PARTS = frozenset({"train", "val", "test"})


def read_folder(root: Path) -> Dataset:
    """Read a folder per class; where the first folders are named after parts, below each part.

    Images may lie at any depth below their class. Hidden files are left out.

    Args:
        root: The folder.

    Returns:
        Labelled images, without groups.

    Raises:
        ConfigError: There are no folders of classes, one of them holds no image, they hold images
            and label maps, or a folder beside those of parts is none.
    """
    folders = _folders(root)
    has_parts = _are_parts(root, folders)
    classes = (
        [(split_name(part.name), folder) for part in folders for folder in _folders(part)]
        if has_parts
        else [("", folder) for folder in folders]
    )
    if not classes:
        raise ConfigError(
            f"{printable(root)} holds no folders: put the images of each class into a folder of its"
            " name, or give a table with the columns path and label"
        )
    if all(is_of_images(folder.name) or is_of_labels(folder.name) for _, folder in classes):
        names = ", ".join(sorted({printable(folder.name) for _, folder in classes}))
        raise ConfigError(
            f"{printable(root)} holds the folders {names}, which are no classes. Images with label"
            " maps are for the heads glands, nuclei, points and pixels (--head); for others give a"
            " folder per class"
        )
    found = [(split, folder.name, path) for split, folder in classes for path in _images(folder)]
    if empty := sorted({printable(f) for _, f in classes} - _with_images(found, classes)):
        raise ConfigError(f"no images in {', '.join(empty)}: fill or remove these folders")
    return Dataset(
        images=tuple(path for _, _, path in found),
        labels=tuple(printable(label) for _, label, _ in found),
        splits=tuple(split for split, _, _ in found) if has_parts else None,
        notes=tuple(_left_out(root, {path for _, _, path in found})),
    )


def _are_parts(root: Path, folders: Sequence[Path]) -> bool:
    """Whether the folders are parts.

    Raises:
        ConfigError: Some are and others are not: the parts would become classes.
    """
    parts = [folder for folder in folders if split_name(folder.name) in _PARTS]
    if parts and len(parts) < len(folders):
        others = [printable(folder.name) for folder in folders if folder not in parts]
        raise ConfigError(
            f"{printable(root)} holds the parts {', '.join(printable(p.name) for p in parts)} and"
            f" beside them {', '.join(others)}, which are none (train, val, test): rename or move"
            " these folders; or give a table with the columns path, label and split, which may name"
            " any part and any class"
        )
    return bool(parts)


def _folders(root: Path) -> list[Path]:
    inside = (p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(inside, key=lambda path: natural(Path(path.name)))


def _images(folder: Path) -> Sequence[Path]:
    return [path for path in walk(folder).files if path.suffix.lower() in SUFFIXES]


def _with_images(
    found: Sequence[tuple[str, str, Path]], classes: Sequence[tuple[str, Path]]
) -> set[str]:
    """The folders of classes that hold an image, as printable text."""
    parents = {parent for _, _, path in found for parent in path.parents}
    return {printable(folder) for _, folder in classes if folder in parents}


def _left_out(root: Path, used: set[Path]) -> Iterator[str]:
    walked = walk(root)
    for left in walked.left_out:
        yield f"left out: {printable(left.path)}: {left.reason}"
    others = [path for path in walked.files if path not in used]
    if others:
        example = printable(others[0].relative_to(root))
        yield f"left out: {len(others):,} files that are no images in a class ({example})"
