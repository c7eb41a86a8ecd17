"""What a dense head found in one image, or in one region of a slide."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.heads.dense import point_files
from pathencoder.images import Key
from pathencoder.nuclei.instances import Labels
from pathencoder.nuclei.measure import Measurements
from pathencoder.nuclei.segment import Nuclei
from pathencoder.stain import StainGuess
from pathencoder.walk import expanded

Floats = NDArray[np.float64]
NOUNS = {"glands": "glands", "nuclei": "nuclei", "points": "cells", "pixels": "classes"}


@dataclass(frozen=True)
class Found:
    """The objects of one image.

    Attributes:
        kind: Of the head.
        key: Path relative to the given folder, the index of the image, or the place of a region.
        image: uint8 RGB [H, W, 3] that was read.
        mpp: Its micrometres per pixel.
        stain: "he" or "ihc".
        labels: int32 [H, W]: objects numbered from 1, 0 is background; of "pixels" the number of
            each pixel's class. None for "points".
        table: A row of measurements for each gland or nucleus; None for others.
        points: x and y of each object in pixels of the image [N, 2]; 0 is the outer edge of the
            first pixel. None for "pixels".
        scores: Height of the peak of each point [N], 0..1; None for others.
        classes: Names of the classes, by number: of pixels, or of points; () where there are none.
        numbers: The number of the class of each point [N]; None where there are no classes.
        probabilities: Of each point's classes [N, C]; None where there are no classes.
        offset: Level-0 x and y of the first pixel of the image.
        notes: What was assumed, as sentences.
        name: Of its files. "": the key, without a suffix.
    """

    kind: str
    key: Key
    image: Pixels
    mpp: float
    stain: str
    labels: Labels | None = None
    table: Measurements | None = None
    points: Floats | None = None
    scores: Floats | None = None
    classes: tuple[str, ...] = ()
    numbers: NDArray[np.int64] | None = None
    probabilities: Floats | None = None
    offset: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    name: str = ""

    def __len__(self) -> int:
        """Objects; of "pixels" the classes that occur."""
        if self.points is not None:
            return len(self.points)
        return 0 if self.labels is None else len(np.unique(self.labels))

    @property
    def names(self) -> list[str]:
        """The class of each point; empty where there are no classes."""
        return [] if self.numbers is None else [self.classes[i] for i in self.numbers]

    def objects(self) -> Nuclei:
        """Glands or nuclei as `segment_nuclei` gives them."""
        assert self.labels is not None
        assert self.table is not None
        stain = StainGuess(self.stain, 1.0, given=True)
        return Nuclei(self.labels, self.table, stain, self.mpp, self.notes)

    def cells(self) -> point_files.Found:
        """Points with their classes, the centre of the first pixel at 0."""
        assert self.points is not None
        assert self.scores is not None
        return point_files.Found(
            np.c_[self.points - 0.5, self.scores],
            None if self.numbers is None else self.names,
            self.probabilities,
            self.classes,
        )

    def within(self, box: tuple[int, int, int, int]) -> Found:
        """What lies in a box: objects whose centroid does, renumbered; of "pixels" a cut-out.

        Args:
            box: Left, top, right and bottom in pixels of the image.
        """
        left, top, right, bottom = box
        if self.kind == "pixels":
            assert self.labels is not None
            cut = np.s_[top:bottom, left:right]
            offset = (self.offset[0] + left, self.offset[1] + top)
            return replace(self, image=self.image[cut], labels=self.labels[cut], offset=offset)
        assert self.points is not None
        x, y = self.points.T
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        if self.table is not None:
            kept = self.objects().within(box)
            points = np.stack([kept.table.x, kept.table.y], 1).astype(np.float64)
            return replace(self, labels=kept.labels, table=kept.table, points=points)

        def rows(values: NDArray[Any] | None) -> Any:
            return None if values is None else values[inside]

        return replace(
            self,
            points=self.points[inside],
            scores=rows(self.scores),
            numbers=rows(self.numbers),
            probabilities=rows(self.probabilities),
        )

    def cut_beyond(self, core: tuple[int, int, int, int]) -> int:
        """How many glands or nuclei reach an edge of the image that lies outside a box.

        There the slide goes on, and they may be cut.

        Args:
            core: Left, top, right and bottom in pixels of the image.

        Returns:
            Their number; 0 for points and classes of pixels.
        """
        if self.table is None or self.labels is None:
            return 0
        left, top, right, bottom = core
        height, width = self.labels.shape
        edges = (
            (left > 0, self.labels[:, 0]),
            (top > 0, self.labels[0]),
            (right < width, self.labels[:, -1]),
            (bottom < height, self.labels[-1]),
        )
        reached = {number for outside, edge in edges if outside for number in edge.tolist()}
        return len(reached - {0})

    def write(self, folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
        """Write NAME.labels.png (or .tif), NAME.geojson, NAME.csv and NAME.overlay.png.

        Points have no label map. The GeoJSON opens in QuPath, in the place of the region.

        Args:
            folder: Created if it does not exist.
            name: Of the files. None: the path below the folder that was given, or that all files
                of a list share, without a suffix where no other image of the same call has the
                same name then; else the key.

        Returns:
            The files.

        Raises:
            StoreError: A file cannot be written.
        """
        from pathencoder.files import make_folder
        from pathencoder.heads.dense.files import write

        place = expanded(folder)
        chosen = name or self.name or os.path.splitext(str(self.key))[0]
        make_folder((place / chosen).parent)
        return write(self, place, chosen)
