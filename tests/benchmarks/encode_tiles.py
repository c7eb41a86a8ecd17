"""The throughput of `encode`, relative to the cost of its parts.

    python -m tests.benchmarks.encode_tiles [--tiles 512] [--rounds 5] [--encoder NAME]

Tiles of 256 px are written as JPEG (quality 90) and as WebP (quality 90). Measured in turn, in each
round, on all cores, eager fp32: the network alone on tensors in memory (at several batch
sizes), decoding and resizing alone (one thread, a plain loop), and `encode` on the folder. Medians
over the rounds; the network at its fastest batch size. The limit is .9 of
1 / (1/network + 1/decode).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pathencoder
from pathencoder.images import list_images, open_image
from pathencoder.outputs import readout

BAR = 0.9
BATCHES = (2, 4, 8, 32)
SAVE = {"jpg": {"quality": 90}, "webp": {"quality": 90}}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiles"


def pictures(count: int, size: int = 256) -> list[Image.Image]:
    """Real tiles if the machine has some, else smooth pictures in the colours of H&E."""
    found = list_images(SHARED / "hpylori_ihc")[:count] if SHARED.is_dir() else []
    real = [Image.fromarray(open_image(p)).resize((size, size)) for p in found]
    rng = np.random.default_rng(0)
    stains = np.array([[88, 66, 140], [226, 150, 190], [245, 240, 244]], dtype=np.uint8)
    made = [
        Image.fromarray(stains[rng.integers(0, 3, (64, 64))]).resize((size, size), 3)
        for _ in range(count - len(real))
    ]
    return real + made


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def network_rates(encoder: pathencoder.Encoder, count: int) -> dict[str, float]:
    """Tiles per second of the network alone at each batch size."""
    read = readout(encoder.network, encoder.spec, "embedding")
    size = encoder.spec.input_size
    x = encoder.transform.normalise(
        np.random.default_rng(0).integers(0, 255, (max(BATCHES), size, size, 3), dtype=np.uint8)
    )

    def loop(batch: int) -> None:
        with torch.inference_mode():
            for _ in range(0, count, batch):
                read(x[:batch])

    return {f"network {b}": -(-count // b) * b / seconds(lambda b=b: loop(b)) for b in BATCHES}


def decode_rate(encoder: pathencoder.Encoder, paths: list[Path]) -> float:
    """Tiles per second of decoding and resizing in one thread."""
    transform = encoder.transform
    return len(paths) / seconds(lambda: [transform.resize(open_image(p)) for p in paths])


def round_of(encoder: pathencoder.Encoder, folder: Path) -> dict[str, float]:
    """All rates, measured one after another."""
    paths = list_images(folder)
    rates = {**network_rates(encoder, len(paths)), "decode": decode_rate(encoder, paths)}
    rates["encode"] = len(paths) / seconds(
        lambda: encoder.encode(folder, precision="fp32", runtime="torch", progress=False)
    )
    return rates


def summarise(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and encode's share of what network and decoding together allow."""
    median = {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}
    network = max(v for k, v in median.items() if k.startswith("network"))
    decode, encode = median["decode"], median["encode"]
    return {
        "network": network,
        "decode": decode,
        "encode": encode,
        "ratio": encode * (1 / network + 1 / decode),
    }


def main() -> None:
    """Print one line per format, and the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoder", default=None)
    options = parser.parse_args()
    encoder = pathencoder.load_encoder(options.encoder, device="cpu")
    encoder.encode([np.zeros((256, 256, 3), np.uint8)] * 8, progress=False)
    tiles = pictures(options.tiles)
    summary: dict[str, object] = {
        "benchmark": "encode_tiles",
        "encoder": encoder.spec.name,
        "threads": torch.get_num_threads(),
        "bar": BAR,
    }
    print(f"{'tiles/s':8} {'network':>8} {'decode':>8} {'encode':>8} {'share':>7}")
    for suffix, settings in SAVE.items():
        with tempfile.TemporaryDirectory() as folder:
            for i, tile in enumerate(tiles):
                tile.save(Path(folder) / f"{i}.{suffix}", **settings)
            median = summarise([round_of(encoder, Path(folder)) for _ in range(options.rounds)])
        print(
            f"{suffix:8} {median['network']:8.1f} {median['decode']:8.1f} {median['encode']:8.1f}"
            f" {median['ratio']:7.2f}"
        )
        summary[suffix] = {k: round(v, 3) for k, v in median.items()}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
