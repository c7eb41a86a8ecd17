"""Segment the nuclei of one image of any size: maps, network, instances, tile by tile."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.images import ImageSource, open_image
from pathencoder.nuclei import instances
from pathencoder.nuclei.instances import Labels, Shape
from pathencoder.nuclei.maps import Calibration
from pathencoder.nuclei.measure import Measurements, measure
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.prepare import STRIP, Prepared, SlideStain, prepare
from pathencoder.nuclei.scores import nucleus_scores
from pathencoder.nuclei.weights import load_network
from pathencoder.stain import StainGuess

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]

TILE = 1024  # working px on a side of the part of a tile whose nuclei are kept
MARGIN = 64  # working px around that part that a tile reads as well
_LARGEST, _DOUBTFUL = 250.0, 0.1  # um2: usual nuclei are smaller; area share that gets a note


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of one image.

    Attributes:
        labels: int32 [H, W], 0 for background, nuclei numbered 1..n.
        table: A row of measurements for each nucleus.
        stain: As given or guessed.
        mpp: Micrometres per pixel, as given or assumed.
        notes: What was assumed, and what looks wrong, in sentences.
    """

    labels: Labels
    table: Measurements
    stain: StainGuess
    mpp: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def positive_fraction(self) -> float | None:
        """Share of DAB-positive nuclei (the Ki67 index of Ki67); None for H&E or without nuclei."""
        positive = self.table.positive
        return None if positive is None or not len(positive) else float(positive.mean())

    def within(self, box: tuple[int, int, int, int]) -> Nuclei:
        """The nuclei whose centroid lies in a box, renumbered.

        Args:
            box: Left, top, right and bottom in pixels of the image.
        """
        left, top, right, bottom = box
        inside = (
            (self.table.x >= left)
            & (self.table.x < right)
            & (self.table.y >= top)
            & (self.table.y < bottom)
        )
        names = np.append(0, np.cumsum(inside) * inside).astype(np.int32)
        return replace(self, labels=names[self.labels], table=self.table.rows(inside))


def segment_nuclei(
    image: ImageSource,
    *,
    mpp: float | None = None,
    stain: str | None = None,
    network: NucleiNetwork | str | os.PathLike[str] | None = None,
    tile: int = TILE,
    slide: SlideStain | None = None,
) -> Nuclei:
    """Find every nucleus in a bright-field image (H&E, or IHC with DAB and hematoxylin).

    Args:
        image: A path, PIL image, array or tensor.
        mpp: Its micrometres per pixel, 0.05 to 2. None: 0.25 is assumed, unless the nuclei are
            far too large or small for it; a note says what was assumed.
        stain: "he" or "ihc". None: guessed; a note says so if the colours are ambiguous.
        network: A network, or a folder that `pathencoder nuclei --adapt` wrote. None: the bundled
            nuclei-fcn.
        tile: Size of the tiles in working pixels, at least 32; changes memory, not nuclei.
        slide: Of `calibrate_slide`: the stain and thresholds of the slide that the image is a
            region of. None: measured on the image alone.

    Returns:
        The nuclei, with notes on what was assumed.

    Raises:
        ImageError: It is not an image, or not bright field.
        ConfigError: A setting is invalid, or the folder holds no nuclei network.
        MissingExtra: scikit-image is not installed.
    """
    instances.tools()
    if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)) or tile < 32:
        raise ConfigError(f"tile {tile!r}: a whole number of working pixels, at least 32")
    chosen = network_of(network)
    prepared = prepare(open_image(image), mpp=mpp, stain=stain, slide=slide)
    labels = np.zeros(prepared.image.shape[:2], np.int32)
    if prepared.calibration is not None:
        _fill(labels, prepared, chosen, int(tile))
    table = measure(labels, prepared.image, mpp=prepared.mpp, stain=prepared.stain.stain)
    return Nuclei(labels, table, prepared.stain, prepared.mpp, (*prepared.notes, *_doubts(table)))


def _doubts(table: Measurements) -> list[str]:
    """A note if objects too large for nuclei hold much of the area."""
    area = table.area_um2
    large = area > _LARGEST
    if not large.any() or area[large].sum() < _DOUBTFUL * area.sum():
        return []
    share = area[large].sum() / area.sum()
    return [
        f"{large.sum():,} of {len(area):,} objects are larger than {_LARGEST:.0f} um2 (the largest "
        f"{area.max():,.0f}) and hold {share:.0%} of the area: clumps, keratin, ink or folds "
        "instead of nuclei, or the micrometres per pixel are wrong or too coarse"
    ]


def network_of(network: NucleiNetwork | str | os.PathLike[str] | None) -> NucleiNetwork:
    """A given network, that of a folder, or (None) the bundled one. Raises ConfigError."""
    if isinstance(network, NucleiNetwork):
        return network
    if network is None or isinstance(network, (str, os.PathLike)):
        return load_network(network)
    raise ConfigError(
        f"network {type(network).__name__}: give a NucleiNetwork, a folder that `pathencoder "
        "nuclei --adapt` wrote, or None for the bundled one"
    )


def label_scores(prepared: Prepared, scores: instances.Scores) -> Labels:
    """Labels of a score map, by the same steps as `segment_nuclei`.

    Args:
        prepared: The image.
        scores: float32 [h, w] of the whole image at the working scale, above 0 in nuclei.

    Returns:
        int32 [H, W] at the scale of the image.
    """
    labels = np.zeros(prepared.image.shape[:2], np.int32)
    everything = tuple(slice(0, n) for n in scores.shape)
    found = _objects(prepared.calibration, prepared.working, scores)
    _paint(labels, found, scores, (everything[0], everything[1]), scores.shape, 0)
    return instances.renumber(labels, 1)


def _fill(labels: Labels, prepared: Prepared, network: NucleiNetwork, tile: int) -> None:
    """Write the nuclei of every tile whose centroid lies in its core into `labels`."""
    assert prepared.calibration is not None
    count = 0
    for core, seen in _tiles(prepared.working.shape[:2], tile):
        scores = nucleus_scores(network, _padded(prepared.calibration.maps(prepared.working[seen])))
        scores = scores[: seen[0].stop - seen[0].start, : seen[1].stop - seen[1].start]
        found = _owned(_objects(prepared.calibration, prepared.working[seen], scores), core, seen)
        count = _paint(labels, found, scores, seen, prepared.working.shape[:2], count)
    _close_gaps(labels, count)


def _objects(calibration: Calibration | None, working: Pixels, scores: instances.Scores) -> Labels:
    """The nuclei of a score map at the working scale, brown ones separated from blue ones."""
    found = instances.split(scores, Shape())
    brown = calibration.brown(working) if calibration else None
    return found if brown is None else instances.split_by_stain(found, brown)


def _close_gaps(labels: Labels, highest: int) -> None:
    """Renumber labels 1..n without gaps, in place."""
    strips = [labels[top : top + STRIP] for top in range(0, len(labels), STRIP)]
    there = np.zeros(highest + 1, bool)
    for strip in strips:
        there[np.unique(strip)] = True
    there[0] = False
    names = (np.cumsum(there) * there).astype(np.int32)
    for strip in strips:
        strip[...] = names[strip]


def _tiles(
    shape: tuple[int, ...], tile: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """(core, core with margin) of each tile, as slices of the working image."""
    for y in range(0, shape[0], tile):
        for x in range(0, shape[1], tile):
            core = tuple(slice(a, min(a + tile, n)) for a, n in zip((y, x), shape, strict=True))
            seen = tuple(
                slice(max(c.start - MARGIN, 0), min(c.stop + MARGIN, n))
                for c, n in zip(core, shape, strict=True)
            )
            yield (core[0], core[1]), (seen[0], seen[1])


def _padded(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps mirrored to at least 32 px a side."""
    missing = [(0, max(0, 32 - n)) for n in maps.shape[1:]]
    return (
        np.pad(maps, [(0, 0), *missing], mode="symmetric") if any(m for _, m in missing) else maps
    )


def _owned(found: Labels, core: tuple[slice, slice], seen: tuple[slice, slice]) -> Labels:
    """The objects whose centroid lies in the core."""
    rows, columns = np.nonzero(found)
    which = found[rows, columns]
    area = np.maximum(np.bincount(which, minlength=1), 1)
    inside = np.ones(len(area), bool)
    for axis, at in enumerate((rows, columns)):
        middle = np.bincount(which, at, len(area)) / area + seen[axis].start
        inside &= (middle >= core[axis].start) & (middle < core[axis].stop)
    inside[0] = False
    return np.where(inside[found], found, 0).astype(np.int32)


def _paint(
    labels: Labels,
    found: Labels,
    scores: instances.Scores,
    seen: tuple[slice, slice],
    whole: tuple[int, ...],
    count: int,
) -> int:
    """Write the objects of a tile into free pixels of the labels of the whole image.

    Returns:
        The highest number so far.
    """
    axes = list(zip(seen, whole, labels.shape, strict=True))
    spans = [_span(*axis) for axis in axes]
    centres = [
        (np.arange(*span) + 0.5) * small / large - 0.5 - s.start
        for span, (s, small, large) in zip(spans, axes, strict=True)
    ]
    fine = instances.enlarge(found, scores, *centres)
    window = labels[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]]
    free = (fine > 0) & (window == 0)
    window[free] = fine[free] + count
    return count + int(found.max(initial=0))


def _span(seen: slice, small: int, large: int) -> tuple[int, int]:
    """The fine pixels whose centres lie in a span of working pixels."""
    return round(seen.start * large / small), round(seen.stop * large / small)
