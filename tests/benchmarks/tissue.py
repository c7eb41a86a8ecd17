"""Tissue masks on composed images with known ground truth.

    python -m tests.benchmarks.tissue [--part check] [--count 8]

Tissue of many stains (tiles of the pretraining corpus, brought to 8 um a pixel and sorted by slide
into two halves: `choice`, on which limits were chosen, and `check`) is laid into random outlines on
real glass (cut from overview pictures, other ones for each half), then pen, shadows and even
surroundings are added. Pen multiplies the image with the transmission
of real ink (one slide's for `choice`, another's for `check`). Our mask is compared with CLAM's rule
(saturation above 8 after a median filter) and Otsu's threshold of saturation. Three shares are
printed for each kind and stain, in percent: of tissue that is found, of glass, shadow and
surroundings that is taken for tissue, of pen that is taken for tissue. The benchmark needs
the shared data.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pathencoder.slides.filters import dilated, eroded
from pathencoder.slides.tissue import tissue_mask
from training.evaluation.tissue import clam, otsu

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
THUMBNAILS = DATA / "slides" / "thumbnails"
MPP, HEIGHT, WIDTH = 8.0, 300, 400
# Glass without tissue: picture, left, top, right, bottom
GLASS = {
    "choice": [
        ("ratkidney_HE_BIRL.jpg", 0, 600, 250, 780),
        ("pale_hematoxylin_valis.webp", 380, 40, 440, 200),
    ],
    "check": [
        ("he_breast_TUPAC_498.webp", 5, 535, 130, 595),
        ("ratkidney_PanCK_IHC_BIRL.jpg", 0, 0, 150, 90),
    ],
}
# Density that ink adds in red, green and blue, measured on glass
INK = {
    "choice": {
        "green": (0.66, 0.18, 0.24),
        "blue": (1.39, 1.11, 0.45),
        "black": (1.34, 1.25, 1.2),
        "red": (0.1, 1.1, 1.1),
    },
    "check": {
        "green": (0.50, 0.20, 0.24),
        "blue": (0.73, 0.43, 0.11),
        "black": (0.95, 1.15, 0.95),
        "red": (0.17, 1.54, 1.68),
    },
}
GROUPS = ("H&E", "IHC", "special")
KINDS = (
    "plain",
    "green",
    "blue",
    "black",
    "red",
    "shadow",
    "black around",
    "grey around",
    "white around",
    "no glass",
)


RECIPES: dict[str, Callable[[RGB, float], Mask]] = {
    "ours": tissue_mask,
    "CLAM": lambda image, _: clam(image),
    "Otsu": lambda image, _: otsu(image),
}


def half_of(slide: str) -> str:
    return ("choice", "check")[hashlib.md5(slide.encode()).digest()[0] % 2]


def read_tiles(part: str, most: int = 120) -> dict[str, list[RGB]]:
    """Tiles at 8 um per pixel, by stain."""
    folder, wanted = DATA / "pretrain", defaultdict(dict)
    with (folder / "manifest.csv").open() as file:
        rows = [
            r
            for r in csv.DictReader(file)
            if r["use"] == "1" and r["stain_class"] in ("he", "ihc", "special")
        ]
    np.random.default_rng(0).shuffle(rows)
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        stain = "H&E" if row["stain_class"] == "he" else row["stain"]
        if half_of(row["slide"]) == part and counts[stain] < most:
            counts[stain] += 1
            wanted[row["shard"]][row["key"]] = (stain, row)
    found: dict[str, list[RGB]] = defaultdict(list)
    for shard, members in wanted.items():
        with tarfile.open(folder / shard) as archive:
            for member in archive:
                if Path(member.name).stem in members:
                    stain, row = members[Path(member.name).stem]
                    found[stain].append(
                        _at_8um(archive.extractfile(member).read(), float(row["mpp_value"] or 0.5))
                    )
    return {stain: tiles for stain, tiles in sorted(found.items()) if len(tiles) >= 15}


def _at_8um(data: bytes, mpp: float) -> RGB:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = max(6, round(image.width * mpp / MPP)), max(6, round(image.height * mpp / MPP))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def mosaic(tiles: list[RGB], rng: np.random.Generator) -> NDArray[np.float64]:
    """Optical density of a field of tiles in random order and orientation."""
    field = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    side = int(np.median([min(t.shape[:2]) for t in tiles]))
    for y in range(0, HEIGHT, side):
        for x in range(0, WIDTH, side):
            tile = np.rot90(tiles[rng.integers(len(tiles))], rng.integers(4))
            tile = np.asarray(
                Image.fromarray(np.ascontiguousarray(tile)).resize(
                    (side, side), Image.Resampling.BOX
                )
            )
            field[y : y + side, x : x + side] = tile[: HEIGHT - y, : WIDTH - x]
    white = np.percentile(np.concatenate([t.reshape(-1, 3) for t in tiles]), 99.5, axis=0).clip(
        235, 250
    )
    return np.maximum(-np.log10((field + 1.0) / (white + 1)), -0.02)


def glass(part: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A canvas of real glass: a patch, mirrored until it fills."""
    name, *box = GLASS[part][rng.integers(len(GLASS[part]))]
    patch = np.asarray(Image.open(THUMBNAILS / name).convert("RGB").crop(tuple(box)))
    pad = [(0, max(0, HEIGHT - patch.shape[0])), (0, max(0, WIDTH - patch.shape[1])), (0, 0)]
    return np.pad(patch, pad, mode="symmetric")[:HEIGHT, :WIDTH].astype(float)


def outline(rng: np.random.Generator) -> Mask:
    """A random connected shape of about a third of the canvas."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    y, x = (rows - HEIGHT / 2) / (HEIGHT * 0.36), (columns - WIDTH / 2) / (WIDTH * 0.36)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    waves = ((2, 0.12), (3, 0.1), (5, 0.06), (9, 0.04))
    return radius < 0.85 + sum(
        height * np.cos(k * angle + rng.uniform(0, 6.3)) for k, height in waves
    )


def pen_line(rng: np.random.Generator) -> NDArray[np.float64]:
    """The strength of a pen line across the canvas, with soft and uneven edges: [h, w]."""
    layer = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(layer)
    ts = np.linspace(0, 1, 40)
    xs = WIDTH * (0.05 + 0.9 * ts)
    ys = HEIGHT * (rng.uniform(0.25, 0.75) + 0.15 * np.sin(6 * ts + rng.uniform(0, 6)))
    points = list(zip(xs.tolist(), ys.tolist(), strict=True))
    width = int(rng.integers(16, 40))
    draw.line(points, fill=230, width=width, joint="curve")
    for point in points[::13]:
        radius = width * 0.5
        draw.ellipse(
            (point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius), fill=255
        )
    soft = np.asarray(layer.filter(ImageFilter.GaussianBlur(2))).astype(float) / 255
    grain = np.asarray(
        Image.fromarray(rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8), np.uint8)).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
    )
    return soft * (0.8 + 0.4 * grain / 255)


def compose(
    kind: str, part: str, tiles: list[RGB], rng: np.random.Generator
) -> tuple[RGB, Mask, Mask, Mask]:
    """An image, with masks of certain tissue, certain background and certain pen."""
    density, shape = mosaic(tiles, rng), outline(rng)
    pen = np.zeros(shape.shape)
    if kind == "no glass":
        shape = np.ones_like(shape)
    image = glass(part, rng) * 10 ** -(density * shape[..., None])
    tissue = eroded(shape, 2) & ((density.mean(axis=2) > 0.05) | (np.ptp(density, axis=2) > 0.03))
    empty = ~dilated(shape, 3)
    if kind in INK[part]:
        pen = pen_line(rng)
        image = image * 10 ** -(pen[..., None] * np.array(INK[part][kind]))
    if kind == "shadow":
        image = _shaded(image, rng)
    if kind.endswith("around"):
        fill = {"black around": 0, "grey around": 128, "white around": 255}[kind]
        y, x = rng.integers(30, 70, 2)
        outside = np.ones_like(shape)
        outside[y:-y, x:-x] = False
        image[outside] = fill
        tissue &= ~dilated(outside, 2)
        empty |= eroded(outside, 2)
    marked = pen > 0.05
    picture = np.clip(
        image + rng.normal(0, 0.5, image.shape[:2])[..., None] * (image > 0) * (image != 128),
        0,
        255,
    )
    return (
        picture.astype(np.uint8),
        tissue & ~dilated(marked, 3),
        empty & ~dilated(marked, 3),
        pen > 0.7,
    )


def _shaded(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Darkened towards one edge, a little yellow, as at the ends of real slides."""
    depth = int(rng.integers(15, 60))
    ramp = np.ones(HEIGHT)
    ramp[-depth:] = np.linspace(1, rng.uniform(0.45, 0.75), depth)
    shade = ramp[:, None, None] ** np.array([1, 1.02, 1.07])
    return image * (shade if rng.random() < 0.5 else shade[::-1])


def group_of(stain: str) -> str:
    return "H&E" if stain == "H&E" else "IHC" if "IHC" in stain or "CISH" in stain else "special"


def measure(
    part: str, count: int, kinds: Sequence[str]
) -> Iterator[tuple[str, str, str, str, float, float, float]]:
    """kind, group, stain, recipe, and the three shares of each picture."""
    fields = read_tiles(part)
    for kind in kinds:
        for group in GROUPS:
            stains = [s for s in fields if group_of(s) == group]
            for seed in range(count):
                rng = np.random.default_rng([seed, KINDS.index(kind), GROUPS.index(group)])
                stain = stains[(seed * 7 + KINDS.index(kind)) % len(stains)]
                image, *truth = compose(kind, part, fields[stain], rng)
                for name, recipe in RECIPES.items():
                    mask = recipe(image, MPP)
                    yield (
                        kind,
                        group,
                        stain,
                        name,
                        *(float(mask[m].mean()) if m.any() else np.nan for m in truth),
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["choice", "check"], default="check")
    parser.add_argument(
        "--count", type=int, default=8, help="pictures of each kind and group of stains"
    )
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--stains", action="store_true", help="the worst stains too")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: no data, nothing to measure")
    start, results = time.perf_counter(), list(measure(options.part, options.count, options.kinds))
    print(
        f"{'kind':14s} {'stain':8s}"
        + "".join(f"{name + ': found, glass, pen':>30s}" for name in RECIPES)
    )
    summary: dict[str, float] = {}
    for kind in options.kinds:
        for group in GROUPS:
            line = f"{kind:14s} {group:8s}"
            for name in RECIPES:
                values = np.array(
                    [r[4:] for r in results if (r[0], r[1], r[3]) == (kind, group, name)]
                )
                with np.errstate(all="ignore"):
                    found, wrong, pen = (
                        float(np.nanmean(c)) if not np.isnan(c).all() else np.nan for c in values.T
                    )
                line += f"{100 * found:14.1f}{100 * wrong:8.1f}{100 * pen:8.1f}"
                summary[f"{name} {kind} {group}"] = round(
                    found - np.nan_to_num(wrong) - np.nan_to_num(pen), 4
                )
            print(line)
    if options.stains:
        ours = [r for r in results if r[3] == "ours"]
        for kind, _, stain, _, found, wrong, pen in (
            sorted(ours, key=lambda r: r[4])[:15]
            + sorted(ours, key=lambda r: -np.nan_to_num(r[5]))[:8]
        ):
            print(
                f"{kind:14s} {stain[:50]:50s} found {100 * found:.1f}, glass {100 * wrong:.1f}, pen"
                f" {100 * pen:.1f}"
            )
    print(f"{len(results) // len(RECIPES)} pictures, {time.perf_counter() - start:.0f} s")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
