"""Label maps of nuclei with a class each, as .mat and .npy files of several sets hold them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError, MissingExtra
from pathencoder.heads.data.marks import Marks
from pathencoder.heads.data.truth import centres_of
from pathencoder.images import Item
from pathencoder.walk import printable

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Matlab:
    """A .mat file with a label map and the class of each nucleus.

    Attributes:
        path: The file.
        classes: Names by the numbers that the file has.
        kinds: The variables of the file and its label map to the numbers of nuclei and of their
            classes.
    """

    path: Path
    classes: Mapping[int, str]
    kinds: Callable[[Mapping[str, Any], Labels], tuple[Labels, Labels]]

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.path)

    def read(self, mpp: float) -> Marks:
        """The map, and the centre and class of each nucleus."""
        variables = _loaded(self.path)
        if "inst_map" not in variables:
            raise ImageError(f"{self.name}: no variable inst_map; it has {_names(variables)}")
        labels = np.asarray(variables["inst_map"]).astype(np.int32)
        try:
            numbers, kinds = self.kinds(variables, labels)
        except KeyError as error:
            raise ImageError(
                f"{self.name}: no variable {error}; it has {_names(variables)}"
            ) from error
        return marked(labels, dict(zip(numbers.tolist(), kinds.tolist(), strict=True)), self)

    def named(self, kind: int) -> str:
        """The name of a class; an error names the file."""
        return _named(self.classes, kind, self.name)


@dataclass(frozen=True)
class Channels:
    """One image of a .npy array [N, H, W, C + 1]: a label map a class, and the background.

    Attributes:
        path: The file.
        number: Of the image.
        classes: Names of the channels but the last.
    """

    path: Path
    number: int
    classes: Sequence[str]
    name: str = field(default="")

    def read(self, mpp: float) -> Marks:
        """One map of all classes, and the centre and class of each nucleus."""
        stored = np.asarray(_array(self.path)[self.number])
        if stored.ndim != 3 or stored.shape[2] < len(self.classes):
            raise ImageError(f"{self.name}: shape {list(stored.shape)}, not [H, W, 6]")
        labels = np.zeros(stored.shape[:2], np.int32)
        kinds: dict[int, int] = {}
        for kind in range(len(self.classes)):
            for number in np.unique(stored[..., kind]):
                if number > 0:
                    kinds[len(kinds) + 1] = kind
                    labels[stored[..., kind] == number] = len(kinds)
        return marked(labels, kinds, self)

    def named(self, kind: int) -> str:
        """The name of a class."""
        return self.classes[kind]


def marked(labels: Labels, kinds: Mapping[int, int], source: Matlab | Channels) -> Marks:
    """A map with the centre and the class of each nucleus that has a pixel in it.

    Args:
        labels: The map [H, W].
        kinds: The class of each number of the map.
        source: Whence it is; names the classes.

    Returns:
        The labels.

    Raises:
        ImageError: A nucleus has no class, or one that is not known.
    """
    numbers = np.unique(labels[labels > 0]).tolist()
    if missing := [number for number in numbers if number not in kinds]:
        raise ImageError(
            f"{source.name}: {len(missing)} nuclei have no class, the first {missing[0]}"
        )
    names = [source.named(kinds[number]) for number in numbers]
    return Marks(map=labels, points=centres_of(labels), names=names)


def float_images(path: Path, names: Sequence[str]) -> list[Item]:
    """The images of a .npy array [N, H, W, 3] with values from 0 to 255, none of them read yet.

    Args:
        path: The file.
        names: What messages call each image.

    Returns:
        The images.
    """
    return [
        Item(number, name, functools.partial(_pixels, path, number, name))
        for number, name in enumerate(names)
    ]


def length(path: Path) -> int:
    """How many images a .npy array holds."""
    return int(_array(path).shape[0])


def _pixels(path: Path, number: int, name: str) -> Pixels:
    stored = np.asarray(_array(path)[number])
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ImageError(f"{name}: shape {list(stored.shape)}, not [H, W, 3]")
    if not np.isfinite(stored).all() or stored.min() < 0 or stored.max() > 255:
        raise ImageError(f"{name}: values outside 0 to 255")
    pixels: Pixels = np.rint(stored).astype(np.uint8)
    return pixels


def _named(classes: Mapping[int, str], kind: int, where: str) -> str:
    if kind not in classes:
        known = ", ".join(map(str, classes))
        raise ImageError(f"{where}: a nucleus of the class {kind}; the set has {known}")
    return classes[kind]


def _array(path: Path) -> NDArray[Any]:
    """A .npy file, of which only the parts that are used are read."""
    try:
        stat = path.stat()
        return _mapped(str(path), stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{printable(path)} cannot be read ({error}): download it again"
        ) from error


@functools.lru_cache(maxsize=8)
def _mapped(path: str, _modified: int, _size: int) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtra.of("heads", f"{printable(path)}: reading .mat files") from error
    try:
        found: Mapping[str, Any] = loadmat(path)
    except Exception as error:  # SciPy raises many kinds of errors on damaged files
        raise ImageError(
            f"{printable(path)} cannot be read ({error}): download it again"
        ) from error
    return found


def _names(variables: Mapping[str, Any]) -> str:
    return ", ".join(name for name in variables if not name.startswith("__")) or "nothing"
