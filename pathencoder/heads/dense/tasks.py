"""What a dense head looks for: glands, nuclei, points, or classes. A new task is one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathencoder.errors import ConfigError
from pathencoder.heads.dense import losses, objects, targets, tune

Floats = NDArray[np.float32]
Truth: TypeAlias = "NDArray[np.integer] | NDArray[np.floating]"
Sizes = Mapping[str, float]  # what was measured on the training images, in um or um2

_CONTOUR_UM, _POINT_UM = 3.0, 1.2
_LEAST_SMOOTHING = 0.7  # of a map of points, in its pixels
_THRESHOLD = 0.5  # where too few images are there to choose it: the best of folds of three sets


@dataclass(frozen=True)
class Task:
    """A task of dense heads.

    Attributes:
        name: Of the task.
        outputs: Channels of the network.
        stride: Of its result, in pixels.
        mpp: Micrometres per pixel at which images are read, unless the user says another.
        points: Its labels are points [N, 2], x and y, instead of a label map [H, W].
        targets: Labels, shape of the image and mpp to float32 [T, H, W].
        loss: Logits and targets, both [N, T, h, w], to a number.
        sizes: Labels of the training images and mpp to what `objects` needs.
        objects: Probabilities [outputs, h, w], mpp and sizes to labels [h, w], or to points: x, y
            in pixels of the read image and height [N, 3].
        activation: Logits [N, outputs, h, w] to probabilities.
        semantic: Its labels are numbers of classes instead of objects; `task_of` says how many.
        classes: Their names, by number.
        tune: Probabilities and labels of images that were held out, mpp and sizes to sizes that fit
            them. None: nothing is chosen so, and every image is fitted on.
    """

    name: str
    outputs: int
    stride: int
    mpp: float
    points: bool
    targets: Callable[[Truth, tuple[int, int], float], Floats]
    loss: Callable[[Tensor, Tensor], Tensor]
    sizes: Callable[[Sequence[Truth], float], dict[str, float]]
    objects: Callable[[Floats, float, Sizes], NDArray[np.generic]]
    activation: Callable[[Tensor], Tensor] = torch.sigmoid
    semantic: bool = False
    classes: tuple[str, ...] = ()
    tune: Callable[[Sequence[Floats], Sequence[Truth], float, Sizes], dict[str, float]] | None = (
        None
    )


def _gland_objects(maps: Floats, mpp: float, sizes: Sizes) -> NDArray[np.generic]:
    return objects.glands(maps, smallest=max(1, round(sizes["smallest_um2"] / mpp**2)))


def _nucleus_objects(maps: Floats, mpp: float, sizes: Sizes) -> NDArray[np.generic]:
    return objects.nuclei(
        maps,
        smallest=max(1, round(sizes["smallest_um2"] / mpp**2)),
        smoothing=0.25 / mpp,
        apart=max(2, round(1.5 / mpp)),
    )


def _point_objects(maps: Floats, mpp: float, sizes: Sizes) -> NDArray[np.generic]:
    smoothing = sizes.get("smoothing_um", tune.SMOOTHING_UM[0])  # older heads have none
    return _peaks(maps[0], mpp, sizes["threshold"], sizes["apart_um"], smoothing)


def _peaks(
    found: Floats, mpp: float, threshold: float, apart_um: float, smoothing_um: float
) -> NDArray[np.float64]:
    pixel = mpp * POINTS.stride
    points = objects.points(
        found,
        threshold=threshold,
        apart=apart_um / pixel,
        smoothing=max(_LEAST_SMOOTHING, smoothing_um / pixel),
    )
    return points * (POINTS.stride, POINTS.stride, 1)


def _tuned_peaks(
    maps: Sequence[Floats], truths: Sequence[Truth], mpp: float, sizes: Sizes
) -> dict[str, float]:
    return tune.peaks(
        [m[0] for m in maps],
        truths,  # type: ignore[arg-type]
        mpp,
        sizes["apart_um"],
        lambda found, *how: _peaks(found, mpp, *how),
    )


def _areas(labels: Sequence[Truth], mpp: float) -> dict[str, float]:
    """A quarter of the area that all but a twentieth of the objects exceed."""
    areas = np.concatenate([np.unique(m[m > 0], return_counts=True)[1] for m in labels])
    low = float(np.percentile(areas, 5)) if len(areas) else 0.0
    return {"smallest_um2": low * mpp**2 / 4}


def _apart(labels: Sequence[Truth], mpp: float) -> dict[str, float]:
    """Points are kept apart by half the distance that one in twenty neighbours is nearer than."""
    from scipy.spatial import cKDTree

    near = [cKDTree(p).query(p, 2)[0][:, 1] for p in labels if len(p) > 1]
    least = float(np.percentile(np.concatenate(near), 5)) * mpp if near else 4 * _POINT_UM
    return {
        "apart_um": min(least / 2, 2 * _POINT_UM),
        "threshold": _THRESHOLD,
        "smoothing_um": tune.SMOOTHING_UM[0],
    }


GLANDS = Task(
    name="glands",
    outputs=2,
    stride=1,
    mpp=1.0,
    points=False,
    targets=lambda labels, _, mpp: targets.glands(labels, _CONTOUR_UM / mpp),  # type: ignore[arg-type]
    loss=losses.inside_and_contour,
    sizes=_areas,
    objects=_gland_objects,
)
NUCLEI = Task(
    name="nuclei",
    outputs=2,
    stride=1,
    mpp=0.25,
    points=False,
    targets=lambda labels, _, __: targets.nuclei(labels),  # type: ignore[arg-type]
    loss=losses.inside_and_depth,
    sizes=_areas,
    objects=_nucleus_objects,
)
POINTS = Task(
    name="points",
    outputs=1,
    stride=2,
    mpp=0.25,
    points=True,
    targets=lambda labels, shape, mpp: targets.points(labels, shape, _POINT_UM / mpp),  # type: ignore[arg-type]
    loss=losses.points,
    sizes=_apart,
    objects=_point_objects,
    tune=_tuned_peaks,
)
PIXELS = Task(
    name="pixels",
    outputs=0,  # as many as there are classes
    stride=1,
    mpp=0.5,
    points=False,
    targets=lambda labels, _, __: _no_classes(),
    loss=losses.classes,
    sizes=lambda _, __: {},
    objects=lambda maps, _, __: objects.classes(maps),
    activation=lambda logits: logits.softmax(1),
    semantic=True,
)
TASKS = {task.name: task for task in (GLANDS, NUCLEI, POINTS, PIXELS)}


def task_of(name: str, classes: Sequence[str] = ()) -> Task:
    """A task by its name.

    Args:
        name: In `TASKS`.
        classes: Names of the classes, which a semantic task needs; others keep no classes.

    Returns:
        The task.

    Raises:
        ConfigError: There is no such task, or a semantic one has fewer than two classes.
    """
    if name not in TASKS:
        raise ConfigError(f"task={name!r}: the tasks are {', '.join(TASKS)}")
    task = TASKS[name]
    if not task.semantic:
        return task
    count = len(classes)
    if count < 2:
        _no_classes(count)
    return replace(
        task,
        outputs=count,
        classes=tuple(classes),
        targets=lambda labels, _, __: targets.classes(labels, count),  # type: ignore[arg-type]
    )


def _no_classes(count: int = 0) -> NoReturn:
    raise ConfigError(f"the task 'pixels' needs the names of at least two classes, not {count}")
