"""The page of `pathencoder explore` at 20,000 tiles: how fast it opens and answers a click.

    python -m tests.benchmarks.explore [tiles [opens]]

The page has one slide of tiles with features of 768 numbers around eight centres, and a picture of
tissue (scikit-image's immunohistochemistry, repeated) that fills the page's size. Headless Chromium
opens it several times; then 20 tiles are clicked. Wall times are from the start of the navigation,
or from the click, until the frame is on the screen; beside them stand the processor seconds of the
whole browser, which a busy machine changes less.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathencoder.explore.data import Laid, page_data
from pathencoder.explore.write import write_page
from pathencoder.pictures.ground import Ground
from pathencoder.pictures.located import Tiles
from tests.support.browser import Browser

BARS = {"open_s": 2.0, "click_s": 0.1, "megabytes": 5.0}
CLICKS = 20
_SIDE, _DIM = 448, 768
_RECORD = """
window.answers = [];
addEventListener("pointerup", (event) => requestAnimationFrame(() => setTimeout(() =>
  answers.push(performance.now() - event.timeStamp))), true);
"""


def make(count: int) -> Laid:
    """A slide of about twice as many places as tiles, in a blob of tissue."""
    from skimage.data import immunohistochemistry

    random = np.random.default_rng(0)
    across = int((2 * count) ** 0.5) + 1
    ys, xs = np.mgrid[:across, :across]
    away = np.hypot(ys - across / 2, xs - across / 2) + random.normal(0, 0.01, ys.shape)
    inside = np.sort(np.argsort(away.ravel())[:count])
    places = np.stack([inside % across, inside // across], axis=1).astype(np.float64)
    kinds = (places // 9).sum(axis=1).astype(int) % 8
    rows = random.normal(size=(8, _DIM))[kinds] + 1.5 * random.normal(size=(count, _DIM)) + 1
    tile = immunohistochemistry()[..., :3]
    picture = np.full((4096, 4096, 3), 245, np.uint8)
    tissue = np.tile(tile, (8, 8, 1))
    round_one = np.hypot(*(np.mgrid[:4096, :4096] - 2048)) < 2048 * 0.8
    picture[round_one] = tissue[round_one]
    scale = across * _SIDE / 4096
    tiles = Tiles(
        file=Path("slide.h5"),
        slide="slide.svs",
        rows=rows.astype(np.float32),
        corners=places * _SIDE,
        side=float(_SIDE),
        step=float(_SIDE),
        mpp=0.25,
        size=None,
        attributes={"encoder": "random"},
    )
    picture = np.asarray(Image.fromarray(picture))
    return Laid(tiles, Ground(picture, (0, 0), (scale, scale), mpp=0.25, slide=Path("slide.svs")))


def opened(browser: Browser, page: Path) -> dict[str, float]:
    """Seconds until the map, and the map with its picture, are on the screen."""
    before = browser.cpu_seconds()
    browser.open(page.as_uri())
    browser.wait("document.body.dataset.complete === 'yes'")
    marks = browser.run("performance.getEntriesByType('mark').map((m) => [m.name, m.startTime])")
    found = {name: at / 1000 for name, at in marks}
    return {**found, "cpu": browser.cpu_seconds() - before}


def clicked(browser: Browser, count: int) -> dict[str, list[float] | float]:
    """Seconds from each click to the frame with its answer."""
    browser.run(_RECORD)
    before = browser.cpu_seconds()
    for number, tile in enumerate(np.linspace(0, count - 1, CLICKS).astype(int).tolist(), 1):
        browser.click(*browser.run(f"explorer.centre({tile})"))
        browser.wait(f"answers.length === {number}")
        assert browser.run("explorer.state().chosen") == tile
    answers = [ms / 1000 for ms in browser.run("answers")]
    return {"answers": answers, "cpu": (browser.cpu_seconds() - before) / CLICKS}


def main(count: int = 20_000, opens: int = 5) -> None:
    """Measure, print the table, end with one line of JSON."""
    laid = make(count)
    with tempfile.TemporaryDirectory() as folder:
        page, started = Path(folder) / "page.html", time.perf_counter()
        size = write_page(page_data([laid], title="benchmark", max_bytes=5_000_000), page)
        made = time.perf_counter() - started
        browser = Browser(_chromium(), Path(folder) / "profile")
        try:
            runs = [opened(browser, page) for _ in range(opens)]
            clicks = clicked(browser, count)
        finally:
            browser.close()
    _report(count, size, made, runs, clicks)


def _report(
    count: int, size: int, made: float, runs: list[dict[str, float]], clicks: dict[str, Any]
) -> None:
    answers = clicks["answers"]
    summary = {
        "tiles": count,
        "megabytes": round(size / 1e6, 2),
        "write_s": round(made, 1),
        "map_painted_s": round(statistics.median(r["painted"] for r in runs), 3),
        "open_s": round(statistics.median(r["complete"] for r in runs), 3),
        "open_cpu_s": round(statistics.median(r["cpu"] for r in runs), 3),
        "click_s": round(statistics.median(answers), 3),
        "click_worst_s": round(max(answers), 3),
        "click_cpu_s": round(clicks["cpu"], 3),
        "load_per_core": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
    }
    print(f"{count:,} tiles, {summary['megabytes']} MB, written in {summary['write_s']} s")
    print(f"opens: median of {len(runs)}; clicks: median of {len(answers)}, and the worst")
    print(f"{'':34}{'wall s':>8}{'CPU s':>8}")
    print(f"{'the map is painted':34}{summary['map_painted_s']:8.3f}")
    print(
        f"{'and the picture of the slide':34}{summary['open_s']:8.3f}{summary['open_cpu_s']:8.3f}"
    )
    print(f"{'a click answers':34}{summary['click_s']:8.3f}{summary['click_cpu_s']:8.3f}")
    print(f"{'the slowest click':34}{summary['click_worst_s']:8.3f}")
    print(f"bars: {BARS}; processes waiting a core: {summary['load_per_core']}")
    print(json.dumps(summary))


def _chromium() -> str:
    import shutil

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "no Chromium on the path"
    return found


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
