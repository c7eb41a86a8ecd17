"""Speed of reading and of the encoder, and how many slides an hour these give."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder import cores
from pathencoder.cli.doctor_checks import Report

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.features.plan import SlidePlan
    from pathencoder.slides.reader import Slide
    from pathencoder.spec import EncoderSpec

_SECONDS = 3.0  # of each measurement
# the slide that a prediction assumes where it is not of the given one
_WIDTH_MM, _HEIGHT_MM, _TISSUE = 20, 15, 0.3


def encoding(encoder: Encoder, report: Report) -> dict[str, str]:
    """Tiles a second through the encoder, from memory; random pixels."""
    import numpy as np

    size = encoder.spec.input_size
    tiles = np.random.default_rng(0).integers(0, 255, (16, size, size, 3), np.uint8)
    encoder.encode(tiles[:8], progress=False)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS:
        done += len(encoder.encode(tiles, progress=False))
    rate = done / (time.perf_counter() - started)
    report.numbers["encoder tiles/s"] = rate
    return {encoder.spec.name: f"{_short(rate)} tiles/s of {size} px on {encoder.device}"}


def reading(file: Path, spec: EncoderSpec, mpp: float | None, report: Report) -> dict[str, str]:
    """A slide as `encode` reads it for an encoder: scale, tissue, tiles, and tiles a second."""
    from pathencoder.features.plan import plan_slide, scale_of
    from pathencoder.features.provenance import Settings
    from pathencoder.slides.reader import open_slide

    settings = Settings(mpp=mpp, target_mpp=spec.reading_mpp)
    started = time.perf_counter()
    with closing(open_slide(file)) as slide:
        scale = scale_of(spec, slide, settings)
        plan = plan_slide(spec, slide, scale, settings)
        count = len(plan.grid.coords)
        report.numbers["seconds before the first tile"] = time.perf_counter() - started
        report.numbers["tiles of the slide"] = count
        return {
            "size": (
                f"{slide.size[0]} x {slide.size[1]} px, {len(slide.downsamples)} levels,"
                f" {slide.vendor}"
            ),
            "reader": slide.reader,
            "mpp": f"{plan.scale.value:.4g} ({plan.scale.source})",
            "tissue": (
                f"{100 * plan.tissue.mask.mean():.1f} % of the slide, {count:,} tiles of"
                f" {spec.input_size} px at {scale.target:g} um/px, found in"
                f" {report.numbers['seconds before the first tile']:.1f} s"
            ),
            "reading": _reading_rate(slide, plan, spec, report),
            **({"notes": "; ".join(plan.notes)} if plan.notes else {}),
        }


def _reading_rate(slide: Slide, plan: SlidePlan, spec: EncoderSpec, report: Report) -> str:
    """Read the slide's tiles once, with one thread a core as encoding does, for some seconds."""
    from pathencoder.errors import SlideError
    from pathencoder.slides.grid import read_tile

    def read(at: tuple[int, int]) -> bool:
        try:
            read_tile(slide, plan.grid, *at, interpolation=spec.interpolation)
        except SlideError:
            return False
        return True

    places = [(int(x), int(y)) for x, y in plan.grid.coords]
    if not places:
        return "nothing to read: no tile has enough tissue"
    threads = min(cores.available(), 16)
    started, good = time.perf_counter(), list[bool]()
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(places), 4 * threads):
            good += pool.map(read, places[first : first + 4 * threads])
            if time.perf_counter() - started > _SECONDS:
                break
    rate = len(good) / (time.perf_counter() - started)
    report.numbers["reading tiles/s"] = rate
    damaged = f"; {good.count(False):,} of {len(good):,} DAMAGED" if not all(good) else ""
    return f"{_short(rate)} tiles/s with {threads} threads{damaged}"


def prediction(encoder: Encoder, report: Report) -> dict[str, str]:
    """Slides an hour from the measured rates; every assumption is part of the text."""
    rate = report.numbers["encoder tiles/s"]
    how = "reading was not measured: give --slide"
    before = 0.0
    read = report.numbers.get("reading tiles/s")
    if read:
        on_cpu = encoder.device.type == "cpu"
        rate = 1 / (1 / rate + 1 / read) if on_cpu else min(rate, read)
        before = report.numbers["seconds before the first tile"]
        how = (
            "reading and the encoder share the cores"
            if on_cpu
            else f"the slower of the two sets the pace: {'reading' if rate == read else 'encoder'}"
        )
    found = {"pace": f"{_short(rate)} tiles/s ({how})"}
    tiles = report.numbers.get("tiles of the slide")
    if read and tiles:
        hourly = 3600 / (before + tiles / rate)
        report.numbers["slides like this an hour"] = hourly
        found["slides like this one"] = f"{hourly:,.0f} an hour ({tiles:,.0f} tiles)"
    return {**found, **_usual(encoder.spec, rate, before, report)}


def _usual(spec: EncoderSpec, rate: float, before: float, report: Report) -> dict[str, str]:
    """Slides an hour of a usual size, where the encoder's scale is known."""
    if spec.reading_mpp is None:
        return {}
    side_mm = spec.input_size * spec.reading_mpp / 1000
    tiles = _WIDTH_MM * _HEIGHT_MM * _TISSUE / side_mm**2
    hourly = 3600 / (before + tiles / rate)
    report.numbers["usual slides an hour"] = hourly
    return {
        "usual slides": (
            f"{hourly:,.1f} an hour, if a slide is {_WIDTH_MM} x {_HEIGHT_MM} mm with"
            f" {100 * _TISSUE:.0f} % tissue ({tiles:,.0f} tiles)"
        )
    }


def _short(rate: float) -> str:
    """Three digits, or whole numbers from 100 on: 0.42, 33.3, 1,204."""
    return f"{rate:.3g}" if rate < 100 else f"{rate:,.0f}"
