"""Folders of tiles with a labels.csv: bright and dark ones, of several groups."""

import csv

import numpy as np
from PIL import Image

HEADER = ("file", "label", "group", "split", "stain", "centre")


def write_set(folder, *, n=24, without=(), test=True, classes=("dark", "bright"), **columns):
    """`n` tiles of 32 px, three a group; the last third of the groups is the test part.

    Args:
        without: Columns that are left out.
        columns: A function of the tile's number for each column that is not as here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "file": lambda i: f"{i}.png",
        "label": lambda i: classes[i % len(classes)],
        "group": lambda i: f"p{i // 3}",
        "split": lambda i: "test" if test and i // 3 >= n // 9 * 2 else ("train" if test else ""),
        "stain": lambda i: "he",
        "centre": lambda i: "AB"[i // 3 % 2],
        **columns,
    }
    header = [c for c in HEADER if c not in without]
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for i in range(n):
            base = 150 if i % len(classes) else 70
            noise = rng.integers(-60, 60, (8, 8, 3)).repeat(4, 0).repeat(4, 1) + base
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
            writer.writerow([values[c](i) for c in header])
    return folder
