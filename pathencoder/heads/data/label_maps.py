"""Label maps: PNG, TIFF and other images, .npy and .mat files of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pathencoder.errors import ImageError, MissingExtra
from pathencoder.heads.data.marks import Marks, no_points
from pathencoder.images import SUFFIXES as IMAGES
from pathencoder.walk import no_such, printable

SUFFIXES = IMAGES | {".npy", ".mat"}
_LOSSLESS = "Save it without loss and without smoothing: PNG, TIFF or .npy"
_MANY = 2  # numbers; with more, a map is tested for smoothed edges
_COUNTED = 1 << 20  # up to this number, counting is faster than sorting
_FLAT = 0.25  # share of a value's pixels that lie beside their like; objects have more


@dataclass(frozen=True)
class LabelMap:
    """A file with a number a pixel.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.path)

    def read(self, mpp: float) -> Marks:
        """The map; of a .mat file as HoVer-Net writes it, also the centres and classes."""
        if self.path.suffix.lower() == ".mat":
            return _of_matlab(_loaded(self.path), self.name)
        return Marks(map=read_label_map(self.path))


def read_label_map(path: Path) -> NDArray[np.integer]:
    """Read a label map.

    Args:
        path: An image, a .npy or a .mat file.

    Returns:
        Whole numbers of at least 0 [H, W], in an integer type that the file fits.

    Raises:
        ImageError: The file is missing or damaged, has colours, or holds numbers that are not
            labels: with decimals, below 0, or smoothed as JPEG and resizing do.
    """
    name = printable(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        found = _plane(_loaded(path), name)
    elif suffix == ".mat":
        found = _map_of(_loaded(path), name)
    else:
        found = _pixels(path, name)
    labels = whole(found, name)
    check_sharp(labels, name)
    return labels


def whole(values: NDArray[Any], name: str) -> NDArray[np.integer]:
    """Labels as an integer array.

    Args:
        values: Numbers of any type.
        name: What an error calls them.

    Returns:
        The same as integers, of at most 32 bits.

    Raises:
        ImageError: They are not whole numbers of at least 0.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise ImageError(f"{name}: labels of type {values.dtype}: whole numbers are needed")
    if np.issubdtype(values.dtype, np.floating):
        finite = bool(np.isfinite(values).all())
        odd = values[values != np.floor(values)] if finite else values[:0]
        if len(odd) or not finite:
            example = f"{odd[0]:g}" if finite else "NaN or infinity"
            raise ImageError(
                f"{name}: labels that are not whole numbers ({example}). A label map has the"
                " number of an object or class in each pixel; probabilities need a threshold first"
            )
    if values.min(initial=0) < 0:
        raise ImageError(f"{name}: labels below 0 ({values.min():g}): 0 is background")
    if values.max(initial=0) > np.iinfo(np.int32).max:  # for example colours packed in 64 bits
        values = np.unique(values, return_inverse=True)[1].reshape(values.shape) + (
            values.min() != 0
        )
    kind = np.uint16 if values.max(initial=0) <= np.iinfo(np.uint16).max else np.int32
    found: NDArray[np.integer] = values.astype(kind)
    return found


def check_sharp(labels: NDArray[np.integer], name: str) -> None:
    """Check that a map was not smoothed.

    JPEG, resizing and anti-aliasing put numbers between labels along their edges: most of the
    numbers then belong to scattered pixels, not to objects.

    Raises:
        ImageError: It was.
    """
    index = labels
    if labels.max(initial=0) > _COUNTED:
        index = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    count = np.bincount(index.ravel())
    numbers = np.flatnonzero(count)
    if len(numbers) <= _MANY:
        return
    first = index[:-1, :-1]
    same = (first == index[1:, :-1]) & (first == index[:-1, 1:]) & (first == index[1:, 1:])
    share = np.bincount(first[same], minlength=len(count))[numbers] / count[numbers]
    if np.median(share[numbers > 0]) < _FLAT:
        raise ImageError(
            f"{name}: {len(numbers)} numbers, most of them of single pixels along edges: a label"
            f" map that JPEG, resizing or anti-aliasing has smoothed. {_LOSSLESS}, or apply a"
            " threshold (numpy: mask > 127)"
        )


def _pixels(path: Path, name: str) -> NDArray[Any]:
    """The stored numbers of an image file, in its own type."""
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{name}: it holds {image.n_frames} images: save one label map")  # type: ignore[attr-defined]
            found: NDArray[Any] = np.asarray(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: {no_such('file', path)}") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors on damaged files
        raise ImageError(f"the label map {name} cannot be read: {error}. Copy it anew") from error
    return found if found.ndim == 2 else _one_channel(found, name)


def _one_channel(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """A picture whose colours are all grey, as one channel."""
    colours = pixels[..., : pixels.shape[-1] - (pixels.shape[-1] in (2, 4))]
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    raise ImageError(
        f"{name}: a picture with colours. A label map has one number a pixel: save the number of"
        " the object or class as a grey PNG or .npy"
    )


def _loaded(path: Path) -> Any:
    """The array of a .npy file, or the variables of a .mat file."""
    name = printable(path)
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise MissingExtra.of("heads", f"{name}: reading .mat files") from error
        with path.open("rb") as stream:  # by name, SciPy does not say that a file is missing
            return loadmat(stream)
    except MissingExtra:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: {no_such('file', path)}") from error
    except NotImplementedError as error:  # MATLAB's 7.3, which is HDF5
        raise ImageError(f"{name}: saved by MATLAB as version 7.3: save it with '-v7'") from error
    except Exception as error:  # as in _pixels
        raise ImageError(f"the label map {name} cannot be read: {error}. Copy it anew") from error


def _plane(values: Any, name: str) -> NDArray[Any]:
    """One map [H, W] of an array; of HoVer-Net's [H, W, 2] the objects."""
    found = np.asarray(values)
    if found.ndim == 3 and found.shape[2] == 2 and _is_one_hot(found):
        raise ImageError(
            f"{name}: two channels of which one is set in every pixel, of the background and of the"
            " object as it seems. A label map is [H, W]: save mask.argmax(-1)"
        )
    if found.ndim == 3 and found.shape[2] in (1, 2):
        found = found[..., 0]
    if found.ndim == 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 2:
        raise ImageError(f"{name}: an array of shape {list(found.shape)}: a label map is [H, W]")
    return found


def _is_one_hot(values: NDArray[Any]) -> bool:
    """Whether one of two channels is 0 and the other a constant in each pixel."""
    most, least = values.max(-1), values.min(-1)
    return bool(values.size and most.max() > 0 and (most == most.max()).all() and not least.any())


def _map_of(variables: dict[str, Any], name: str) -> NDArray[Any]:
    """The label map among MATLAB's variables: inst_map, or the only one that is a plane."""
    planes = {k: v for k, v in _numeric(variables).items() if v.ndim == 2 and min(v.shape) > 2}
    for key in ("inst_map", "instance_map", "label", "labels", "mask"):
        if key in planes:
            return planes[key]
    if len(planes) != 1:
        found = ", ".join(planes) or "none"
        raise ImageError(
            f"{name}: no variable inst_map, and not exactly one that could be a map ({found})"
        )
    return next(iter(planes.values()))


def _of_matlab(variables: dict[str, Any], name: str) -> Marks:
    """A map where there is one; with inst_centroid and inst_type, points with their classes."""
    numeric = _numeric(variables)
    labels = whole(_map_of(variables, name), name)
    check_sharp(labels, name)
    centres, kinds = numeric.get("inst_centroid"), numeric.get("inst_type")
    if centres is None or centres.ndim != 2 or centres.shape[1] != 2:
        return Marks(map=labels)
    names: list[str] = []
    if kinds is not None and kinds.size == len(centres):
        names = [f"{number:g}" for number in kinds.ravel()]
    points = np.asarray(centres, np.float64) if len(centres) else no_points()
    return Marks(map=labels, points=points, names=names or [""] * len(points))


def _numeric(variables: dict[str, Any]) -> dict[str, NDArray[Any]]:
    return {
        key: value
        for key, value in variables.items()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.number)
    }
