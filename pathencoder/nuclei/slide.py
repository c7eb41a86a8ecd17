"""Nuclei of a whole slide, region by region, with one stain and one set of thresholds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, ImageError, SlideError
from pathencoder.nuclei import instances, segment
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.prepare import SlideStain, calibrate_slide, check_settings
from pathencoder.nuclei.regions import Box, Region, given_regions, regions_with_tissue
from pathencoder.nuclei.scale import check_scale
from pathencoder.nuclei.segment import Nuclei
from pathencoder.slides.reader import RGB, Slide, open_slide
from pathencoder.slides.tissue import TissueMask, find_tissue, refuse_dark

log = logging.getLogger(__name__)

_FIELDS, _FIELD_UM = 32, 128  # fields, and um on a side, that a slide is calibrated on
_ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class RegionNuclei:
    """The nuclei of one region of a slide.

    Attributes:
        box: x, y, width, height of the region in level-0 pixels.
        nuclei: Its nuclei. `labels` has the size of the box, and positions in `table` count from
            its corner. Where regions overlap, each nucleus belongs to one of them only.
        image: uint8 RGB [height, width, 3], the pixels of the box.
        slide_notes: What the user should know of the slide; the same for all of its regions.
    """

    box: Box
    nuclei: Nuclei
    image: RGB
    slide_notes: tuple[str, ...] = ()

    @property
    def centroids(self) -> NDArray[np.float64]:
        """x, y of each nucleus in level-0 pixels of the slide: float64 [n, 2]."""
        table = self.nuclei.table
        return np.stack([table.x, table.y], 1).astype(np.float64) + self.box[:2]


def segment_slide(
    slide: Slide | str | os.PathLike[str],
    *,
    regions: Iterable[Sequence[int]] | None = None,
    mpp: float | None = None,
    stain: str | None = None,
    network: NucleiNetwork | str | os.PathLike[str] | None = None,
    on_error: str = "raise",
) -> Iterator[RegionNuclei]:
    """Find the nuclei of a slide, one region at a time, so that memory stays flat.

    Stain and thresholds are measured once, on fields with tissue from all over the slide, and hold
    for all of its regions. The results are those of `pathencoder nuclei SLIDE`.

    Example:
        ```python
        for region in pathencoder.segment_slide("slide.svs"):
            print(region.box, len(region.nuclei))
        ```

    Args:
        slide: A path, or an open slide (which stays open).
        regions: x, y, width, height of each region in level-0 pixels; what reaches over the edge
            is clipped. None: every region with tissue.
        mpp: Micrometres per level-0 pixel. None: read from the file.
        stain: "he" or "ihc". None: guessed from the whole slide.
        network: As for `segment_nuclei`.
        on_error: "raise" stops at a region that cannot be read; "skip" leaves it out and logs why.

    Returns:
        An iterator over the regions with tissue, row by row, or the given ones in their order. A
        slide without tissue gives none.

    Raises:
        SlideError: The slide or a region cannot be read, or it is fluorescence.
        MissingMpp: Its scale is unknown or contradictory.
        ImageError: Its scale does not let nuclei be distinguished, or a region lies outside.
        ConfigError: A setting cannot be used.
        MissingExtra: scikit-image or openslide is not installed.
    """
    instances.tools()
    check_settings(mpp, stain)
    if on_error not in _ON_ERROR:
        raise ConfigError(f"on_error {on_error!r}: one of {', '.join(_ON_ERROR)}")
    chosen = segment.network_of(network)
    own = isinstance(slide, (str, os.PathLike))
    opened = open_slide(os.fspath(slide)) if isinstance(slide, (str, os.PathLike)) else slide
    try:
        found = SlideRegions(opened, mpp=mpp, stain=stain)
        todo = found.regions(None if regions is None else list(regions))
    except BaseException:
        if own:
            opened.close()
        raise
    return _each(found, todo, chosen, own=own, skip=on_error == "skip")


def _each(
    slide: SlideRegions, regions: list[Region], network: NucleiNetwork, *, own: bool, skip: bool
) -> Iterator[RegionNuclei]:
    for note in slide.all_notes:
        log.info("%s: %s", slide.path, note)
    try:
        for region in regions:
            try:
                found = slide.segment(region, network)
            except (ImageError, SlideError) as error:
                if not skip:
                    raise
                log.warning("%s, region %s is skipped: %s", slide.path, region.name, error)
                continue
            yield found
    finally:
        if own:
            slide.close()


class SlideRegions:
    """An open slide, its regions, and the stain and thresholds that they share.

    Args:
        slide: It stays open until `close`.
        mpp: As the user gave it.
        stain: As the user gave it.
        mpp_source: Where a given scale is from.
        overlap_um: How far a region sees beyond its core. None: enough for nuclei.

    Attributes:
        path: Of the slide.
        mpp: Micrometres per level-0 pixel.
        mpp_source: Where the scale is from.
        notes: What the user should know of the scale.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        mpp: float | None,
        stain: str | None,
        mpp_source: str = "",
        overlap_um: float | None = None,
    ) -> None:
        scale = slide.mpp(mpp)
        self._slide, self._stain = slide, stain
        self.path = slide.path
        self.mpp: float = scale.value
        self.mpp_source = mpp_source or scale.source
        self.notes = scale.notes
        self._overlap = None if overlap_um is None else round(overlap_um / self.mpp)
        check_scale(self.mpp, self.mpp_source, str(slide.path))

    @cached_property
    def tissue(self) -> TissueMask:
        """Where the tissue is. Raises SlideError."""
        return find_tissue(self._slide, self.mpp)

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes on the scale, and on the tissue if it was searched."""
        tissue = self.tissue.notes if "tissue" in self.__dict__ else ()
        return (*tissue, *self.notes)

    @cached_property
    def calibration(self) -> SlideStain | None:
        """Stain and thresholds; None: there is no tissue, and each region is calibrated by itself.

        Raises ImageError for fluorescence.
        """
        fields = self._fields()
        found = calibrate_slide(fields, mpp=self.mpp, stain=self._stain) if fields else None
        return found if found is not None and found.calibration is not None else None

    def regions(self, boxes: Sequence[Sequence[int]] | None) -> list[Region]:
        """The given regions, or (None) those with tissue.

        Raises:
            SlideError: The background is dark, as in fluorescence, or nothing can be read.
            ConfigError: A given region is not four whole numbers.
        """
        if boxes is not None:
            return given_regions(boxes, self._slide.size, str(self.path))
        refuse_dark(self.tissue, self.path)
        return regions_with_tissue(self.tissue, self._slide.bounds, self._overlap)

    def read(self, region: Region) -> RGB:
        """uint8 [H, W, 3] of a region. Raises ImageError (it lies outside) and SlideError."""
        if region.problem:
            raise ImageError(region.problem)
        x, y, width, height = region.box
        return self._slide.read(x, y, 0, width, height)

    def segment(self, region: Region, network: NucleiNetwork) -> RegionNuclei:
        """The nuclei of one region. Raises ImageError and SlideError."""
        image = self.read(region)
        found = segment.segment_nuclei(
            image, mpp=self.mpp, stain=self._stain, network=network, slide=self.calibration
        )
        found = replace(found, notes=(*region.notes, *found.notes))
        return RegionNuclei(region.box, _within_core(found, region), image, self.all_notes)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()

    def _fields(self) -> list[RGB]:
        """Fields with tissue from all over the slide; damaged ones are left out."""
        rows, columns = np.nonzero(self.tissue.mask)
        places = np.linspace(0, len(rows) - 1, min(_FIELDS, len(rows))).astype(int)
        x, y = columns[places] * self.tissue.scale[0], rows[places] * self.tissue.scale[1]
        side = round(_FIELD_UM / self.mpp)
        corners = np.stack([x, y], 1) + self.tissue.origin - side // 2
        found = (_read_or_none(self._slide, int(left), int(top), side) for left, top in corners)
        return [field for field in found if field is not None]


def _within_core(nuclei: Nuclei, region: Region) -> Nuclei:
    if region.core is None:
        return nuclei
    left, top = region.core[0] - region.box[0], region.core[1] - region.box[1]
    return nuclei.within((left, top, left + region.core[2], top + region.core[3]))


def _read_or_none(slide: Slide, x: int, y: int, side: int) -> RGB | None:
    try:
        return slide.read(x, y, 0, side, side)
    except SlideError:
        return None
