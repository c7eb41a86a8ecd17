"""Made-up tiles of two or three classes that a small encoder tells apart, by patient."""

import numpy as np
from PIL import Image

COLOURS = {"benign": (220, 150, 200), "malignant": (130, 70, 160), "stroma": (240, 200, 220)}


def tile(label, seed, size=64):
    """uint8 [size, size, 3]: the colour of the class, with noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 8, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)


def folder(root, labels=("benign", "malignant"), patients=6, each=2):
    """ROOT/LABEL/P<patient>_<n>.png: every patient has `each` tiles of every label."""
    for c, label in enumerate(labels):
        (root / label).mkdir(parents=True, exist_ok=True)
        for patient in range(patients):
            for n in range(each):
                pixels = tile(label, 100 * c + 10 * patient + n)
                Image.fromarray(pixels).save(root / label / f"P{patient}_{n}.png")
    return root


GROUPS = r"(P\d+)_"


def table(root, rows, header="path,label,group,split"):
    """A CSV beside the tiles."""
    file = root / "labels.csv"
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return file
