"""Nuclei in the XML of Aperio ImageScope, whose layers name no class."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from pathencoder.heads.data.marks import Marks
from pathencoder.heads.data.outlines import ImageScope

_MPP = re.compile(rb'<Annotations[^>]*MicronsPerPixel="([0-9.eE+-]+)"')


@dataclass(frozen=True)
class OneClass:
    """An XML file of which every region is an object of one class.

    Attributes:
        path: The file.
        label: The class.
    """

    path: Path
    label: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return ImageScope(self.path).name

    def read(self, mpp: float) -> Marks:
        """The outlines."""
        found = ImageScope(self.path).read(mpp)
        areas = [dataclasses.replace(area, name=self.label) for area in found.areas]
        return dataclasses.replace(found, areas=areas)


def stated_mpp(path: Path) -> float | None:
    """The micrometres per pixel that a file states, where they are plausible."""
    with path.open("rb") as file:
        match = _MPP.search(file.read(4096))
    value = float(match[1]) if match else 0.0
    return value if 0.05 < value < 5 else None
