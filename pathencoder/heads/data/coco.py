"""COCO's JSON: images, categories, and annotations as polygons, run lengths, boxes, keypoints."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.geojson import Ring
from pathencoder.heads.data.marks import Area, Marks, Mask
from pathencoder.heads.data.outlines import closed
from pathencoder.walk import printable

_BAD = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError),
    OverflowError,  # int() of Infinity, which Python's JSON reads
)


@dataclass(frozen=True)
class CocoImage:
    """The annotations of one image.

    Attributes:
        name: What messages call them.
        size: Height and width that the file states; None where it states none.
        annotations: As COCO has them.
        categories: Number to name.
        regions: Annotations are regions of classes, not objects.
    """

    name: str
    size: tuple[int, int] | None
    annotations: Sequence[dict[str, Any]] = field(repr=False, compare=False)
    categories: dict[int, str] = field(repr=False, compare=False)
    regions: bool = False

    def read(self, mpp: float) -> Marks:
        """Areas of annotations with a segmentation; of others, the centres of their boxes.

        Raises:
            ImageError: An annotation is not as COCO defines it.
        """
        areas, points, names, crowds = [], list[tuple[float, float]](), list[str](), 0
        size = self.size
        for number, annotation in enumerate(self.annotations):
            try:
                kind = _class_of(annotation, self.categories)
                size = _same_size(annotation, size)
                if annotation.get("iscrowd") and not self.regions:
                    crowds += 1  # many objects under one mask
                elif area := _area(annotation, kind):
                    areas.append(area)
                else:
                    points.append(_centre(annotation))
                    names.append(kind)
            except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
                identity = annotation.get("id", number)
                raise ImageError(
                    f"{self.name}: annotation {identity} is not as COCO defines it ({error!s})"
                ) from error
        at = np.array(points, np.float64).reshape(-1, 2)
        left_out = [f"{crowds} crowds (iscrowd)"] if crowds else []
        return Marks(areas=areas, points=at, names=names, size=size, left_out=left_out)


def is_coco(data: object) -> bool:
    """Whether parsed JSON is COCO's."""
    return isinstance(data, dict) and all(
        isinstance(data.get(key), list) for key in ("images", "annotations")
    )


def read_coco(
    file: Path, data: Any = None, *, regions: bool = False
) -> list[tuple[Path, CocoImage]]:
    """The images of a file with their annotations.

    Args:
        file: The JSON.
        data: Its parsed content. None: it is read.
        regions: Annotations are regions of classes, not objects.

    Returns:
        Path and annotations of every image, in the order of the file. An image is looked for beside
        the file, in its folder images/, and in the folder above; a path that does not exist is the
        first of these.

    Raises:
        ConfigError: It cannot be read, or is not COCO's.
    """
    shown = printable(file)
    try:
        data = json.loads(file.read_bytes()) if data is None else data
        if not is_coco(data):
            raise ValueError("it has no lists 'images' and 'annotations'")
        of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        names = _categories(data)
        found = []
        for image in data["images"]:
            path = _found(file, str(image["file_name"]))
            stated = image.get("height"), image.get("width")
            size = (int(stated[0]), int(stated[1])) if all(stated) else None
            where = f"{shown}, image {printable(str(image['file_name']))}"
            of_it = of_image.pop(image["id"], [])
            found.append((path, CocoImage(where, size, of_it, names, regions)))
    except _BAD as error:
        raise ConfigError(f"{shown}: not a COCO file ({error!s})") from error
    if of_image:
        lost = sum(map(len, of_image.values()))
        raise ConfigError(
            f"{shown}: {lost} annotations are of images that it does not list (image_id"
            f" {next(iter(of_image))!r}): export it again"
        )
    return found


def decode_counts(text: str | bytes) -> list[int]:
    """The run lengths of COCO's compressed form.

    Six bits a character from "0" (48) on: five of the number, the lowest first, and one that says
    whether more follow; signed. From the fourth on, each is the difference to the one two before
    (pycocotools' rleFrString).

    Raises:
        ValueError: The text ends inside a number.
    """
    data = text.encode("ascii") if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for code in data:
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that end inside a number")
    return counts


def mask_of_counts(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """The mask of run lengths: of 0 and 1 in turn, down the columns.

    Args:
        counts: Run lengths, of 0 first.
        size: Height and width.

    Returns:
        bool [H, W].

    Raises:
        ValueError: They do not add up to the size.
    """
    runs = np.asarray(counts, np.int64)
    if runs.sum() != size[0] * size[1] or (runs < 0).any():
        raise ValueError(f"run lengths of {runs.sum()} pixels for {size[0]} x {size[1]}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(size[::-1]).T)


def _categories(data: dict[str, Any]) -> dict[int, str]:
    """Number to name; where the file lists none, several numbers are the names of classes."""
    if listed := data.get("categories"):
        return {int(c["id"]): str(c["name"]) for c in listed}
    given = {a.get("category_id") for a in data["annotations"]} - {None}
    return {int(number): str(number) if len(given) > 1 else "" for number in given}


def _class_of(annotation: dict[str, Any], categories: dict[int, str]) -> str:
    """The class of an annotation; "" without one.

    Raises:
        ValueError: It is of a category that the file does not list.
    """
    number = annotation.get("category_id")
    if number is None:
        return ""
    if int(number) not in categories:
        raise ValueError(f"its category_id {number} is not among the categories of the file")
    return categories[int(number)]


def _same_size(
    annotation: dict[str, Any], stated: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The size of the image: as the file states it, or as its run lengths do.

    Raises:
        ValueError: These run lengths are of another size.
    """
    given = annotation.get("segmentation")
    if not isinstance(given, dict):
        return stated
    size = (int(given["size"][0]), int(given["size"][1]))
    if stated not in (None, size):
        raise ValueError(
            f"run lengths of {size[1]} x {size[0]} px, the image is of {stated[1]} x {stated[0]}"
        )
    return size


def _area(annotation: dict[str, Any], kind: str) -> Area | None:
    """The area of an annotation; None where it has no segmentation."""
    given = annotation.get("segmentation")
    if isinstance(given, dict):
        counts = given["counts"]
        size = (int(given["size"][0]), int(given["size"][1]))
        runs = decode_counts(counts) if isinstance(counts, str | bytes) else counts
        return Area.of_mask(kind, mask_of_counts(runs, size))
    if not given:
        return None
    rings: list[list[Ring]] = []
    for part in given:
        flat = np.asarray(part, np.float64)
        if flat.ndim != 1 or len(flat) % 2:
            raise ValueError("a polygon that is no flat list of x and y")
        rings.append([closed(flat.reshape(-1, 2).tolist())])
    return Area(kind, rings)


def _centre(annotation: dict[str, Any]) -> tuple[float, float]:
    """The first visible keypoint, else the centre of the box; the first pixel's centre at 0."""
    keypoints = annotation.get("keypoints") or []
    for x, y, visible in zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True):
        if visible:
            return float(x) - 0.5, float(y) - 0.5
    left, top, width, height = map(float, annotation["bbox"])
    return left + width / 2 - 0.5, top + height / 2 - 0.5


def _found(file: Path, name: str) -> Path:
    """Where an image lies: names in the file are relative to folders that it does not say."""
    given = Path(name)
    above = file.parent.parent
    options = [
        file.parent / given,
        file.parent / "images" / given,
        above / given,
        above / "images" / given,
        above / file.stem.removeprefix("instances_") / given,
    ]
    return next((path for path in options if os.path.isfile(path)), options[0])
