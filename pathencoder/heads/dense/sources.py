"""What a dense head reads: images with their scales, and the regions of slides."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, ImageError
from pathencoder.formats.file_kinds import looks_like_slide
from pathencoder.formats.image_scale import image_scale
from pathencoder.images import Images, Item, Key, survey
from pathencoder.mpp import check_mpp
from pathencoder.nuclei.regions import Box, Region, given_regions
from pathencoder.nuclei.slide import SlideRegions
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.walk import expanded, printable


@dataclass(frozen=True)
class Read:
    """The pixels of an image, its micrometres per pixel, and what was assumed."""

    image: Pixels
    mpp: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One image that is not read yet.

    Attributes:
        item: The image.
        given: Micrometres per pixel, as the user gave them.
        fitted: Those of the images that the head was fitted on, where these have one scale.
        name: Of the files of its results; "" where it has a number alone.
    """

    item: Item
    given: float | None
    fitted: float | None
    name: str = ""

    @property
    def key(self) -> Key:
        """Of the image."""
        return self.item.key

    def read(self) -> Read:
        """Read the image.

        Raises:
            ImageError: It cannot be read.
            MissingMpp: Its file states contradictory scales.
            ConfigError: Its scale is not known.
        """
        image = self.item.load()
        if self.given is not None:
            return Read(image, self.given)
        stated = None if self.item.path is None else image_scale(self.item.path)
        if stated is not None:
            return Read(image, stated.value, tuple(stated.notes))
        return Read(image, *assumed(self.fitted, self.item.where))


def assumed(fitted: float | None, where: str) -> tuple[float, tuple[str, ...]]:
    """The scale of the images that a head was fitted on, and a note that says so.

    Raises:
        ConfigError: They had several.
    """
    if fitted is None:
        raise ConfigError(
            f"{where}: its micrometres per pixel are not known, and the head was fitted on images"
            " of several scales: give mpp= (--mpp)"
        )
    note = f"its scale is not stated: {fitted:g} um/px assumed, as of the images of the fit"
    return fitted, (note,)


def images(given: Images, mpp: float | None, fitted: float | None) -> Iterator[Source]:
    """The images, in order.

    Args:
        given: In any form that `Encoder.encode` takes.
        mpp: As the user gave it.
        fitted: As in `Source`.

    Raises:
        ConfigError: `mpp` is no scale, or a slide is given.
        ImageError: A path does not exist, or there is no image.
    """
    scale = None if mpp is None else check_mpp(mpp)
    if is_slide(given):
        raise ConfigError(
            f"{given}: a slide. Give region=(x, y, width, height), or use head.predict_slide, which"
            " goes over all of its tissue"
        )
    items, count = survey(given)
    if count is None:  # it may have no end
        return (Source(item, scale, fitted) for item in items)
    listed = list(items)
    pairs = zip(listed, _names(listed), strict=True)
    return (Source(item, scale, fitted, name) for item, name in pairs)


def _names(items: Sequence[Item]) -> list[str]:
    """Of the files of results: a file's path below a folder, or below what all files share.

    Items without a file, or with one that is given twice, have their number.
    """
    keys = [item.key for item in items]
    if any(isinstance(key, int) for key in keys):
        files = [item.path for item in items if item.path is not None]
        if len(files) < len(items) or len(set(files)) < len(files):
            return [str(key) for key in keys]
        try:
            shared = os.path.commonpath([os.path.abspath(file.parent) for file in files])
        except ValueError:  # on several drives
            return [str(key) for key in keys]
        keys = [Path(os.path.relpath(file, shared)).as_posix() for file in files]
    return names_of([printable(str(key)) for key in keys])


def names_of(keys: Sequence[str]) -> list[str]:
    """Names for the files of results: keys without suffix, or with it where two would be the same.

    Names that differ in case only are the same on some disks.

    Args:
        keys: Paths of images, all different.
    """
    names = [os.path.splitext(key)[0] for key in keys]
    while True:
        counts = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
        longer = [
            key if counts[unicodedata.normalize("NFC", name).casefold()] > 1 else name
            for key, name in zip(keys, names, strict=True)
        ]
        if longer == names:
            return names
        names = longer


def is_slide(given: object) -> bool:
    """Whether an input is the path of a slide."""
    return isinstance(given, str | os.PathLike) and looks_like_slide(expanded(given))


def cut(read: Read, box: Box) -> tuple[Read, Region]:
    """A part of an image, clipped to it, and its place.

    Raises:
        ImageError: The part lies outside.
    """
    height, width = read.image.shape[:2]
    region = given_regions([box], (width, height), "the image")[0]
    if region.problem:
        raise ImageError(region.problem)
    x, y, w, h = region.box
    return Read(read.image[y : y + h, x : x + w], read.mpp, read.notes), region


@contextmanager
def regions_of(
    slide: Slide | str | os.PathLike[str], mpp: float | None, overlap_um: float | None
) -> Iterator[SlideRegions]:
    """A slide and its regions; one that was opened here is closed.

    Args:
        slide: A path, or an open slide.
        mpp: As the user gave it.
        overlap_um: How far a region sees beyond itself.
    """
    own = isinstance(slide, str | os.PathLike)
    opened = open_slide(os.fspath(slide)) if isinstance(slide, str | os.PathLike) else slide
    try:
        scale = None if mpp is None else check_mpp(mpp)
        yield SlideRegions(opened, mpp=scale, stain=None, overlap_um=overlap_um)
    finally:
        if own:
            opened.close()
