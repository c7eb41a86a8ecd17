"""Dense sets of drawn tissue."""

import csv

import numpy as np
from PIL import Image
from synthetic_nuclei import tissue


def write_dense_sets(root, names=("monuseg", "crchisto")):
    """In nuclei/: six H&E images of three patients a set, with label maps and with points."""
    for name in names:
        folder = root / "nuclei" / name / "train"
        folder.mkdir(parents=True)
        rows = []
        for i in range(6):
            image, labels, _ = tissue((128, 128), nuclei=8, radius=9, seed=i)
            Image.fromarray(image).save(folder / f"{i}.png")
            Image.fromarray(labels.astype(np.uint16)).save(folder / f"{i}.labels.png")
            centres = [np.argwhere(labels == n).mean(0) for n in range(1, labels.max() + 1)]
            lines = "".join(f"{x},{y},c\n" for y, x in centres)
            (folder / f"{i}.points.csv").write_text("x,y,class\n" + lines)
            rows.append(
                {
                    "file": f"train/{i}.png",
                    "split": "train",
                    "mpp": "0.25",
                    "slide_id": f"p{i // 2}",
                }
            )
        with (folder.parent / "meta.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return root
