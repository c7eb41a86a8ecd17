"""Folders of images with labels beside them, for heads that give a value to every pixel."""

import csv

import numpy as np
from PIL import Image
from synthetic_nuclei import tissue

MPP = 0.5


def folder(root, *, count=4, per_patient=1, points=False, parts=("",), side=96):
    """ROOT/[PART/]images and masks (or a CSV of points beside each image); P0_0.png and so on."""
    for number, part in enumerate(parts):
        for i in range(count):
            patient = i // per_patient + number * count
            stem, seed = f"P{patient}_{i}", 100 * number + i
            image, labels, _ = tissue((side, side), nuclei=8, radius=7, seed=seed)
            place = root / part / "images"
            save(place / f"{stem}.png", image)
            if points:
                write_points(place / f"{stem}.csv", labels)
            else:
                save(root / part / "masks" / f"{stem}.png", labels.astype(np.uint16))
    return root


def cells(root, *, count=2, side=96):
    """As `folder`, with points that are positive (brown) or negative (blue)."""
    for i in range(count):
        image, labels, brown = tissue(
            (side, side), nuclei=8, radius=7, seed=i, stain="ihc", positive=0.5
        )
        save(root / "images" / f"P{i}_{i}.png", image)
        names = ["positive" if one else "negative" for one in brown]
        write_points(root / "images" / f"P{i}_{i}.csv", labels, names)
    return root


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def write_points(file, labels, names=None):
    """The centres of objects, and their classes."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["x", "y", "class"] if names else ["x", "y"])
        for number in range(1, labels.max() + 1):
            y, x = np.argwhere(labels == number).mean(0)
            writer.writerow([x, y, names[number - 1]] if names else [x, y])
