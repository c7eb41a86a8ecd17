"""The cost of nuclei segmentation: training, inference, parameters.

    python -m tests.benchmarks.nuclei [--rounds 5] [--no-training]

Training: the 30 training images of MoNuSeg if the machine has them, else 30 synthetic ones of
1000 x 1000 px; from the pixels in memory to a network (limit: 60 s on two cores). Inference: one
1000 x 1000 px image at 0.25 um to labels and measurements (median; limit: 1 s), and its parts.
Parameters: everything that is trained (limit: 12,000).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.images import list_images, open_image
from pathencoder.nuclei import instances
from pathencoder.nuclei.adapt.train import train
from pathencoder.nuclei.measure import measure
from pathencoder.nuclei.network import parameters
from pathencoder.nuclei.prepare import prepare
from pathencoder.nuclei.scores import nucleus_scores
from pathencoder.nuclei.segment import label_scores, segment_nuclei
from pathencoder.nuclei.weights import load_network

BARS = {"training_s": 60.0, "inference_s": 1.0, "parameters": 12_000}
IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "nuclei" / "monuseg" / "train"
MPP = 0.25


def pictures(count: int = 30, size: int = 1000) -> list[NDArray[np.uint8]]:
    """Real images if the machine has them, else pink fields with round purple nuclei."""
    if IMAGES.is_dir():
        return [open_image(p) for p in list_images(IMAGES) if p.suffix == ".webp"][:count]
    return [_made(size, np.random.default_rng(seed)) for seed in range(count)]


def _made(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:size, :size]
    image = np.tile(np.array([225, 170, 205], np.uint8), (size, size, 1))
    for y, x in rng.integers(0, size, (500, 2)):
        window = np.s_[max(y - 15, 0) : y + 16, max(x - 15, 0) : x + 16]
        image[window][np.hypot(rows[window] - y, columns[window] - x) < 12] = (105, 70, 150)
    return (image + rng.integers(0, 12, image.shape)).astype(np.uint8)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def inference(image: NDArray[np.uint8], rounds: int) -> dict[str, float]:
    """Median seconds of the whole and of its parts."""
    network = load_network()
    prepared = prepare(image, mpp=MPP)
    assert prepared.calibration is not None
    maps = prepared.calibration.maps(prepared.working)
    scores = nucleus_scores(network, maps)
    labels = label_scores(prepared, scores)
    parts: dict[str, Callable[[], object]] = {
        "inference_s": lambda: segment_nuclei(image, mpp=MPP),
        "maps_s": lambda: prepare(image, mpp=MPP),
        "network_s": lambda: nucleus_scores(network, maps),
        "split_s": lambda: instances.split(scores),
        "measure_s": lambda: measure(labels, image, mpp=MPP, stain="he"),
    }
    return {
        name: statistics.median(seconds(work) for _ in range(rounds))
        for name, work in parts.items()
    }


def training(images: list[NDArray[np.uint8]]) -> float:
    """Seconds from pixels to a trained network."""

    def work() -> None:
        prepared = [prepare(image, mpp=MPP) for image in images]
        train([p.calibration.maps(p.working) for p in prepared if p.calibration])

    return seconds(work)


def main() -> None:
    """Print a line per figure, and all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-training", action="store_true")
    options = parser.parse_args()
    images = pictures()
    found: dict[str, float] = {
        "parameters": parameters(load_network()),
        **inference(images[0], options.rounds),
    }
    if not options.no_training:
        found["training_s"] = training(images)
    for name, value in found.items():
        print(f"{name:14} {value:10,.3f}" + (f"   bar {BARS[name]:,.0f}" if name in BARS else ""))
    made = "monuseg train" if IMAGES.is_dir() else "made"
    about = {
        "benchmark": "nuclei",
        "images": made,
        "threads": torch.get_num_threads(),
        "bars": BARS,
    }
    print(json.dumps({**about, **{k: round(v, 3) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
