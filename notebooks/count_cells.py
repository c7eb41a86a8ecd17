# %% [markdown]
# # Detect and count cells: a Ki67 index
#
# A detector of cells with their classes, learnt from points: positive (brown) and negative (blue)
# nuclei, counted with the share of positives and an interval. It needs `pip install
# 'pathencoder[heads,nuclei]'` and no network connection.
#
# scikit-image's immunohistochemistry picture shows a membrane stain, not Ki67. Here its brown is
# taken out, and nuclei that are drawn by chance get it instead: a Ki67-like picture, of which the
# right count is known. The nuclei themselves are real. In your work the points come from a
# pathologist: a table with the columns image, x, y and class, or QuPath's export.

# %%
import csv
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image
from skimage import data
from skimage.color import hed2rgb, rgb2hed
from skimage.filters import gaussian

import pathencoder

STEPS = int(os.environ.get("PATHENCODER_NOTEBOOK_STEPS", 300))
folder, random = Path(mkdtemp()), np.random.default_rng(0)
MPP = 0.5  # um/px; assumed, the picture does not state its scale

# %% [markdown]
# ## Pictures and points
#
# The label-free network finds the nuclei; chance decides which are positive, and by which share in
# each picture. The left half of the picture, in three stainings, is the train part, the right half
# the test part.

# %%
picture = data.immunohistochemistry()[: 512 if STEPS > 2 else 128]
nuclei = pathencoder.segment_nuclei(picture, mpp=MPP)
blue = rgb2hed(picture)[..., 0]
print(len(nuclei), "nuclei")


def stained(left, share, strength):
    """One half with Ki67-like nuclei: the image, and x, y and class of each nucleus."""
    here = (nuclei.table.x >= left) & (nuclei.table.x < left + 256)
    numbers = np.flatnonzero(here) + 1
    positive = random.random(len(numbers)) < share
    brown = gaussian(np.isin(nuclei.labels, numbers[positive]).astype(float), 1)
    hed = np.stack([blue * (1 - 0.6 * brown), 0 * blue, 1.3 * blue * brown], -1) * strength
    pixels = (hed2rgb(hed) * 255).clip(0, 255).astype(np.uint8)[:, left : left + 256]
    rows = [
        (nuclei.table.x[n - 1] - left, nuclei.table.y[n - 1], "positive" if p else "negative")
        for n, p in zip(numbers, positive)
    ]
    return pixels, rows


made = {}
for number in range(5):
    part = "train" if number < 3 else "test"
    made[f"{part}{number}.png"] = stained(
        0 if part == "train" else 256, random.uniform(0.15, 0.6), random.uniform(0.8, 1.2)
    )
with (folder / "points.csv").open("w", newline="") as stream:
    table = csv.writer(stream)
    table.writerow(["image", "x", "y", "class", "split"])
    for name, (pixels, rows) in made.items():
        Image.fromarray(pixels).save(folder / name)
        for x, y, label in rows:
            table.writerow([name, f"{x:.1f}", f"{y:.1f}", label, name[:-5]])
Image.fromarray(np.hstack([pixels for pixels, _ in made.values()]))

# %% [markdown]
# ## The head
#
# First a detector, trained through: each point is a small peak of a map. Then the classes of what it
# finds, by a linear head on crops around the points. A finding counts if it lies within 3 um of a
# point that no other finding has. Few steps of small windows are enough here; the defaults (700 steps
# of 8 windows of 256 px) are for real sets and take minutes.

# %%
head = pathencoder.fit(
    "points",
    None,
    folder / "points.csv",
    mpp=MPP,
    evaluate="test",
    stain="ihc",
    steps=STEPS,
    batch=4,
    side=128,
    progress=False,
)
print(head.held_out.text())

# %% [markdown]
# ## The count
#
# Positive cells are red, negative ones blue. `found.write(folder)` writes the same with a table and
# GeoJSON for QuPath; `head.predict_slide("slide.svs")` counts a whole slide region by region.

# %%
from pathencoder.heads.dense import point_files

shown = []
for name, (pixels, rows) in made.items():
    if not name.startswith("test"):
        continue
    found = head.predict(pixels, mpp=MPP)[0]
    truth = [label for *_, label in rows]
    index, known = found.names.count("positive") / max(1, len(found)), truth.count("positive") / len(truth)
    print(f"{name}: {len(found)} cells ({len(truth)} known), positive {index:.0%} ({known:.0%} known)")
    shown += [pixels, point_files.overlay(found.cells(), pixels, MPP)]
Image.fromarray(np.hstack(shown))

# %% [markdown]
# The test half is tissue of the same slide, and its classes were drawn: figures on patients are lower.
# With groups (patients) in the table, the report gives intervals over them.
