"""Images of disks that absorb light like stained nuclei, with their true labels."""

import numpy as np

from pathencoder.stain import VECTORS

BACKGROUND = {"he": ("eosin", 0.35), "ihc": ("hematoxylin", 0.06)}


def tissue(size=(160, 200), *, nuclei=18, radius=6, stain="he", positive=0.0, seed=0, apart=1.2):
    """Round nuclei that do not touch: (uint8 [H, W, 3], int32 labels [H, W], bool positive [n])."""
    rng = np.random.default_rng(seed)
    labels, spots = np.zeros(size, np.int32), []
    for _ in range(4000):
        y, x = rng.uniform(radius + 2, np.array(size) - radius - 2)
        if len(spots) < nuclei and all(
            np.hypot(y - b, x - a) > 2 * radius * apart for b, a in spots
        ):
            spots.append((y, x))
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number, (y, x) in enumerate(spots, 1):
        labels[np.hypot(rows - y, columns - x) <= radius] = number
    brown = rng.random(len(spots)) < positive
    return render(labels, brown, stain, rng), labels, brown


def render(labels, brown, stain, rng):
    name, amount = BACKGROUND[stain]
    density = np.array(VECTORS[name]) * (amount + rng.normal(0, 0.02, (*labels.shape, 1)))
    is_brown = np.append(False, brown)[labels]
    density[(labels > 0) & ~is_brown] += 0.55 * np.array(VECTORS["hematoxylin"])
    density[(labels > 0) & is_brown] += 0.8 * np.array(VECTORS["dab"])
    return np.clip(255 * 10**-density, 0, 255).astype(np.uint8)
