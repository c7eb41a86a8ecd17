"""Slides through fastslide, for what OpenSlide refuses; always in a process of its own.

fastslide 0.8 never returns from a damaged JPEG tile. Each read has a time-out, after which the
process is ended; the region counts as unreadable and the next read starts another process.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.errors import MissingExtra, SlideError
from pathencoder.formats.image_scale import evidence_of
from pathencoder.formats.tiff_tags import read_pages
from pathencoder.mpp import Mpp, decide
from pathencoder.mpp_claims import Claim, Evidence, number
from pathencoder.slides import checks, dicom
from pathencoder.slides.child import Child, NoAnswer
from pathencoder.slides.levels import RGB, padded, true_downsample
from pathencoder.slides.reader import Slide

MODULE = "pathencoder.slides.fastslide_child"
OPEN_SECONDS, READ_SECONDS = 120.0, 30.0
_MOST_CHILDREN = 4  # that read one slide at the same time
_MOST_HANGS = 20  # of one slide: then it counts as unreadable, so that a run ends


def open_file(path: Path) -> Slide:
    """Open a file, or a folder of DICOM files; see `pathencoder.slides.reader.open_slide`.

    Raises:
        SlideError: fastslide does not read it, or not as 8-bit RGB.
        MissingExtra: fastslide is not installed.
    """
    if importlib.util.find_spec("fastslide") is None:
        kind = path.suffix or "DICOM"
        raise MissingExtra.of("fastslide", f"Reading {kind} files with fastslide")
    if path.is_dir():
        dicom.files_of_slide(path)  # refuses several slides
    else:
        wrong = checks.damaged_tiles(path) or checks.unreadable(path, generic=True)
        # of DICOM it uses the colours that the JPEG frames hold, of TIFF those of the header
        if wrong := wrong or checks.false_tiff(path):
            raise SlideError(f"{path}: {wrong}")
    slide = FastSlideReader(path)
    try:
        wrong = slide.wrong()
    except BaseException:
        slide.close()
        raise
    if wrong:
        slide.close()
        raise SlideError(f"{path}: {wrong}")
    return slide


@dataclass(frozen=True)
class _Facts:
    """What the process says of the slide: the fields of fastslide_child.py."""

    version: str
    format: str
    sizes: list[tuple[int, int]]
    downsamples: list[float]
    mpp: tuple[float, float]
    bounds: tuple[int, int, int, int]
    samples: str
    channels: int
    images: int
    planes: int
    power: str


class FastSlideReader:
    """A slide through fastslide.

    Args:
        path: The file or folder.
        module: The module that the process runs.
        seconds: Time that the opening and one read may take.

    Raises:
        SlideError: fastslide cannot open it.
    """

    def __init__(
        self,
        path: Path,
        *,
        module: str = MODULE,
        seconds: tuple[float, float] = (OPEN_SECONDS, READ_SECONDS),
    ) -> None:
        self.path = path
        self._module, self._seconds = module, seconds
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        self._hangs, self._lock, self._closed = 0, threading.Lock(), False
        child, self._facts = self._start()
        for _ in range(_MOST_CHILDREN - 1):
            self._idle.put(None)  # a place for a process that is not started yet
        self._idle.put(child)
        facts = self._facts
        self.size = facts.sizes[0]
        self._sizes = facts.sizes
        self.downsamples = tuple(
            true_downsample(self.size, size, factor)
            for size, factor in zip(facts.sizes, facts.downsamples, strict=True)
        )
        stated = min(facts.bounds[2:]) > 0
        self.bounds = facts.bounds if stated else (0, 0, *self.size)
        self.vendor = facts.format
        self.reader = f"fastslide {facts.version}"
        self.notes: tuple[str, ...] = ()

    def wrong(self) -> str:
        """Why it must not be used, as a sentence; "" for nothing."""
        facts = self._facts
        if facts.samples != "uint8" or facts.channels not in (1, 3):
            return f"{facts.channels} channels of {facts.samples}: 8-bit RGB is read"
        if facts.planes > 1:
            return f"it holds {facts.planes} planes or time points, of which one would be read"
        pages = () if self.path.is_dir() else read_pages(self.path)
        if pages and self.size != (pages[0].width, pages[0].height):
            return f"fastslide opens it as {self.size[0]} x {self.size[1]} px, which it is not"
        try:
            self.read(0, 0, 0, 1, 1)
        except SlideError as error:  # of damage: it is reported tile by tile
            return str(error) if "unsupported" in str(error).lower() else ""
        return ""

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel; see `Slide.mpp`."""
        stated = evidence_of(self.path) if self.path.is_file() else Evidence(())
        x, y = (number(side) for side in self._facts.mpp)  # 0.0 where it is not known
        claims = list(stated.claims)
        if x and y:
            generic = "tiff" in self.vendor.lower()  # its scale is that of the tags
            claims.append(Claim("fastslide mpp", x, y, "tags" if generic else "microscope"))
        power = stated.power or number(self._facts.power)
        evidence = Evidence(tuple(claims), power, self.size, stated.described)
        return decide(evidence, name=str(self.path), given=given)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """Read a region, uint8 [height, width, 3]; see `Slide.read`."""
        factor = self.downsamples[level]
        left, top = round(x / factor), round(y / factor)  # its coordinates are of the level

        def inside(left: int, top: int, width: int, height: int) -> RGB:
            data = self._ask((level, left, top, width, height), f"region at ({x}, {y})")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)

        return padded(inside, self._sizes[level], left, top, (width, height))

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        while True:
            try:
                child = self._idle.get_nowait()
            except queue.Empty:
                return
            if child is not None:
                child.end()

    def _start(self) -> tuple[Child, _Facts]:
        child = Child(self._module, [str(self.path)])
        try:
            worked, data = child.answer(self._seconds[0])
        except NoAnswer as error:
            raise SlideError(f"{self.path}: fastslide cannot open it: {error}") from error
        if not worked:
            child.end()
            raise SlideError(f"{self.path}: fastslide cannot open it: {_first_line(data)}")
        facts: dict[str, Any] = json.loads(data)
        if not facts["sizes"]:  # so it opens whatever is no slide
            child.end()
            raise SlideError(f"{self.path}: fastslide finds no image in it")
        facts["sizes"] = [tuple(size) for size in facts["sizes"]]
        return child, _Facts(**{**facts, "bounds": tuple(facts["bounds"])})

    def _ask(self, request: tuple[int, ...], where: str) -> bytes:
        if self._closed:
            raise SlideError(f"{self.path}: the slide was closed")
        if self._hangs >= _MOST_HANGS:
            raise SlideError(
                f"{self.path}: {where}, level {request[0]}, was not read: fastslide has not"
                f" answered {self._hangs} times for this slide"
            )
        child = self._idle.get()
        try:
            if child is None:
                child, _ = self._start()
            worked, data = child.answer(self._seconds[1], request)
        except NoAnswer as error:
            child = None
            with self._lock:
                self._hangs += 1
            raise SlideError(
                f"{self.path}: {where}, level {request[0]}, cannot be read with fastslide: {error}"
            ) from error
        except BaseException:
            if child is not None:
                child.end()
            child = None
            raise
        finally:
            if self._closed and child is not None:
                child.end()
            else:
                self._idle.put(child)
        if not worked:
            raise SlideError(
                f"{self.path}: {where}, level {request[0]}, cannot be read: {_first_line(data)}"
            )
        return data


def _first_line(data: bytes) -> str:
    """The first line of an error; fastslide's others name its own source files."""
    return data.decode("utf-8", "replace").partition("\n")[0].strip()
