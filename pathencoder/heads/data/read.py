"""Read a labelled data set in any form, and check it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pathencoder.errors import ConfigError
from pathencoder.heads.data.check import check
from pathencoder.heads.data.dataset import Dataset, split_names
from pathencoder.heads.data.dataset import text_of as text_of
from pathencoder.heads.data.folder import read_folder
from pathencoder.heads.data.table import read_csv
from pathencoder.images import ImageSource
from pathencoder.walk import expanded, no_such, printable

Data: TypeAlias = "Dataset | str | os.PathLike[str] | Sequence[ImageSource]"
Labels: TypeAlias = "str | Sequence[object] | None"
Groups: TypeAlias = "str | Sequence[object] | Callable[[Path], str] | None"


def read_dataset(
    data: Data, *, labels: Labels = None, groups: Groups = None, splits: Labels = None
) -> Dataset:
    r"""Read and check labelled images.

    Args:
        data: A folder per class (ROOT/CLASS/..., or ROOT/train/CLASS/... and ROOT/test/CLASS/...);
            a table with a row an image (CSV; columns path, label, group, split); a list of paths or
            images with `labels`; or a `Dataset`.
        labels: For a list: the class of each image. For a table: the name of the column.
        groups: The patient, slide or case of each image. For a table: the name of the column (None:
            "group", "patient" and similar, where there is one). For a folder: a regular expression
            with one group in parentheses, searched in each path below the folder, for example
            r"(P\d+)_". For all: a list, or a function of the path.
        splits: For a list: the part of each image. For a table: the name of the column.

    Returns:
        The data set.

    Raises:
        ConfigError: The data set cannot be read, or has bad rows: the message lists all of them.
    """
    if isinstance(groups, str) and isinstance(data, Dataset):
        raise ConfigError(
            f"groups={groups!r}: an expression or the name of a column goes with a folder or a"
            " table. A public data set (--dataset) has its own groups, where they are known: leave"
            " groups= (--groups) out; in Python, give a list or a function of the path instead"
        )
    if isinstance(groups, str) and not isinstance(data, str | os.PathLike):
        raise ConfigError(f"groups={groups!r}: for a list of images give a list of groups")
    if isinstance(data, Dataset):
        read = data
    elif isinstance(data, str | os.PathLike):
        read = _from_path(expanded(data), labels, groups, splits)
    else:
        read = _from_list(data, labels)
    if groups is not None and not isinstance(groups, str):
        read = dataclasses.replace(read, groups=_groups(read, groups))
    for name, given in (("labels", labels), ("splits", splits)):
        if given is not None and not isinstance(given, str):
            values = _texts(given, name)
            if name == "splits":
                values = split_names(values)
            changed: dict[str, Any] = {name: values}
            read = dataclasses.replace(read, **changed)
        elif given is not None and not _is_table(data):
            raise ConfigError(f"{name}={given!r}: the name of a column goes with a table")
    return check(read)


def _is_table(data: object) -> bool:
    return isinstance(data, str | os.PathLike) and expanded(data).is_file()


def _from_path(path: Path, labels: Labels, groups: Groups, splits: Labels) -> Dataset:
    columns = [given if isinstance(given, str) else None for given in (labels, groups, splits)]
    if path.is_dir():
        found = read_folder(path)
        pattern = columns[1]
        if pattern is None:
            return found
        paths = [Path(image) for image in found.images]  # type: ignore[arg-type]
        return dataclasses.replace(found, groups=tuple(groups_in_paths(pattern, path, paths)))
    if not path.is_file():
        raise ConfigError(f"{no_such('folder or table', path)}: {printable(path)}")
    return read_csv(path, label=columns[0], group=columns[1], split=columns[2])


def _from_list(data: Sequence[ImageSource], labels: Labels) -> Dataset:
    if isinstance(data, bytes) or not isinstance(data, Iterable):
        raise ConfigError(
            f"data={type(data).__name__}: give a folder per class, a table, a list of images with"
            " labels, or a Dataset"
        )
    images = tuple(data)
    if labels is None or isinstance(labels, str):
        raise ConfigError("a list of images needs labels=, a list with the class of each")
    found = tuple(expanded(i) if isinstance(i, str) else i for i in images)
    return Dataset(found, _texts(labels, "labels"))


def groups_in_paths(pattern: str, root: Path, paths: Sequence[Path]) -> list[str]:
    r"""The group of each image by its path.

    Args:
        pattern: A regular expression with one group in parentheses.
        root: A folder: the expression is searched in what follows it in a path, or in the whole
            path of an image elsewhere.
        paths: Of the images.

    Returns:
        Groups; "" where the expression does not occur.

    Raises:
        ConfigError: It is not such an expression, or occurs in no path.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"groups={pattern!r} is not a regular expression ({error})") from error
    if expression.groups != 1:
        raise ConfigError(
            f"groups={pattern!r}: a regular expression with one group in parentheses is needed, for"
            r" example (P\d+)_; it is searched in each path below the folder"
        )

    below = [
        printable((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())
        for path in paths
    ]
    found = [expression.search(text) for text in below]
    if below and not any(found):
        raise ConfigError(
            f"groups={pattern!r} occurs in none of the {len(below)} paths, {below[0]} for example"
        )
    return ["" if match is None else match.group(1) or "" for match in found]


def _groups(data: Dataset, groups: Sequence[object] | Callable[[Path], str]) -> tuple[str, ...]:
    if not callable(groups):
        return _texts(groups, "groups")
    if not all(isinstance(image, str | os.PathLike) for image in data.images):
        raise ConfigError("groups= as a function takes paths: for images in memory give a list")
    return tuple(text_of(groups(Path(image))) for image in data.images)  # type: ignore[arg-type]


def _texts(values: Iterable[object], name: str) -> tuple[str, ...]:
    """Labels, groups or splits of any kind as text; None and NaN as empty text."""
    flat = getattr(values, "ndim", 1) == 1
    if isinstance(values, bytes) or not isinstance(values, Iterable) or not flat:
        raise ConfigError(f"{name}={type(values).__name__}: a list with a value an image is needed")
    return tuple(text_of(value) for value in values)
