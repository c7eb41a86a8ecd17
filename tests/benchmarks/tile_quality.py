"""What `encode --qc` costs: the quality of a tile against reading and encoding it, on one core.

python -m tests.benchmarks.tile_quality [SLIDE]

CPU time of this process, measured in turns. Without SLIDE a small pyramid is made.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import pathencoder
from pathencoder.slides.grid import plan_grid, read_tile
from pathencoder.slides.quality import quality_of
from pathencoder.slides.tissue import find_tissue
from tests.support.small_slides import section, write_tiff

ROUNDS, TILES = 5, 32


def timed(action):
    begun = time.process_time()
    result = action()
    return result, time.process_time() - begun


def main():
    torch.set_num_threads(1)
    encoder = pathencoder.load_encoder(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = sys.argv[1] if len(sys.argv) > 1 else None
        made = section(2500, 2500, ((100, 100, 2400, 2400),))
        slide = pathencoder.open_slide(file or write_tiff(Path(folder) / "s.tif", made))
        mpp, target = slide.mpp().value, encoder.spec.mpp or 0.5
        side = encoder.spec.input_size
        tissue = find_tissue(slide, mpp)
        grid = plan_grid(tissue, slide.bounds, mpp=mpp, target_mpp=target, tile_px=side)
        corners = grid.coords[:TILES].tolist()
        times = {"read": [], "encode": [], "quality": []}
        for _ in range(ROUNDS):
            tiles, took = timed(lambda: [read_tile(slide, grid, *at) for at in corners])
            times["read"].append(took)
            same = np.stack(tiles)
            times["encode"].append(
                timed(
                    lambda same=same: encoder.encode(same, mpp=target, workers=1, progress=False)
                )[1]
            )
            times["quality"].append(timed(lambda t=tiles: [quality_of(i, target) for i in t])[1])
        slide.close()
    each = {name: statistics.median(took) / len(corners) for name, took in times.items()}
    for name, seconds in each.items():
        print(f"{name:8s} {1000 * seconds:7.2f} ms a tile")
    share = each["quality"] / (each["read"] + each["encode"])
    print(json.dumps({"tiles": len(corners), "quality_share": round(share, 4)}))


if __name__ == "__main__":
    main()
