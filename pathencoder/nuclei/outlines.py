"""Outlines of labelled objects as polygons: traced along pixel edges, simplified, always valid.

An outline joins the midpoints of the pixel edges around an object, as marching squares do on a
mask. Pixels that touch only at a corner are separate. Many objects are traced at a time, because a
region of a slide holds tens of thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pathencoder.nuclei.instances import Labels, tools
from pathencoder.nuclei.polygons import area_between, corners, is_simple
from pathencoder.tracing import Index, Points, Rings, trace

_BAND = 512  # rows; objects whose box begins in a band are traced together
_STEPS = (1.0, 0.85, 0.7, 0.5)  # parts of the tolerance, tried in this order
_CHANGE = 0.02  # share of an object's area that may change


def contours(labels: Labels, tolerance: float = 0.0) -> Iterator[tuple[int, Points]]:
    """The outer outline of every object; of an object in several parts, that of the largest.

    Every outline is closed, simple and counter-clockwise in the plane of x and y, with at least
    three different points. Holes are filled.

    Args:
        labels: int32 [H, W], 0 for background. The numbers may have gaps.
        tolerance: Largest distance in pixels of removed points from the outline; 0 keeps every
            point. It is reduced where more than 2 % of an object's area would change, as in small
            objects; an outline that would cross itself or vanish keeps every point.

    Yields:
        (label, float64 [K, 2] of x, y in pixels, 0 being the outer edge of the first pixel).
    """
    for numbers, rings in _outer_rings(labels):
        yield from zip(numbers.tolist(), _fewer_points(rings, tolerance), strict=True)


def _fewer_points(rings: Rings, tolerance: float) -> list[Points]:
    """Each ring simplified by up to the tolerance."""
    found = [rings[i] for i in range(len(rings))]
    waiting = np.arange(len(rings))
    for step in _STEPS:
        if not tolerance or not len(waiting):
            break
        part = rings.chosen(waiting)
        kept = corners(part, tolerance * step)
        near = np.flatnonzero(area_between(part, kept) <= _CHANGE * part.areas())
        thin = part.thinned(kept).chosen(near)
        good = is_simple(thin)
        for place in np.flatnonzero(good).tolist():
            found[waiting[near[place]]] = thin[place]
        waiting = np.delete(waiting, near[good])
    return found


def _outer_rings(labels: Labels) -> Iterator[tuple[Index, Rings]]:
    """Labels [R] and their outer outlines, for a band of the image at a time."""
    ndimage, *_ = tools()
    bands: dict[int, list[tuple[int, tuple[slice, slice]]]] = {}
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            bands.setdefault(box[0].start // _BAND, []).append((number, box))
    wanted = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for band in bands.values():
        numbers = [number for number, _ in band]
        top, left = (min(box[axis].start for _, box in band) for axis in (0, 1))
        bottom, right = (max(box[axis].stop for _, box in band) for axis in (0, 1))
        window = labels[top:bottom, left:right]
        wanted[numbers] = True
        found, rings = trace(np.where(wanted[window], window, 0))
        wanted[numbers] = False
        largest = _largest_of_each(found, rings.areas())
        chosen = rings.chosen(largest)
        yield found[largest], Rings(chosen.points + np.array([left, top]), chosen.starts)


def _largest_of_each(labels: Index, areas: Points) -> Index:
    """The index of the largest ring of each label."""
    order = np.lexsort((areas, labels))
    last = np.append(labels[order][1:] != labels[order][:-1], True)
    return np.asarray(order[last])
