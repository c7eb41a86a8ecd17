# %% [markdown]
# # Segment glands and nuclei
#
# Dense heads: an outline of every gland and of every nucleus, from few labelled images. It needs `pip
# install 'pathencoder[heads,nuclei]'` and no network connection.
#
# The images are the two halves of scikit-image's immunohistochemistry picture. Labels come from what
# the heads do not see: brown (DAB) marks the epithelium of glands, and is taken out of the images; the
# nuclei are those of the label-free network. Such labels are rough: gaps in the brown are closed, and
# with them a narrow strand of stroma, across which two glands become one. In your work both come from
# a pathologist, as masks, GeoJSON of QuPath, COCO or ImageScope's XML (docs/heads.md).

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image
from skimage import data
from skimage.color import hed2rgb, rgb2hed
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects
from skimage.segmentation import find_boundaries

import pathencoder

STEPS = int(os.environ.get("PATHENCODER_NOTEBOOK_STEPS", 80))
folder = Path(mkdtemp())
MPP = 0.5  # um/px; assumed, the picture does not state its scale

picture = data.immunohistochemistry()[: 512 if STEPS > 2 else 192]
stains = rgb2hed(picture)
smooth = gaussian(stains[..., 2], 4)
brown = closing(smooth > threshold_otsu(smooth), disk(7))  # blue nuclei at the border are inside
inside = remove_small_holes(brown, max_size=4000)
glands = label(remove_small_objects(inside, max_size=2000))
nuclei = pathencoder.segment_nuclei(picture, mpp=MPP).labels
print(glands.max(), "parts of glands,", nuclei.max(), "nuclei")


def outlined(pixels, *maps):
    """Outlines of label maps: the first in green, the second in yellow."""
    shown = pixels.copy()
    for found, colour in zip(maps, ((0, 150, 60), (250, 190, 0))):
        shown[find_boundaries(found, mode="thick" if found is maps[0] else "inner")] = colour
    return shown


Image.fromarray(np.hstack([picture, outlined(picture, glands, nuclei)]))

# %% [markdown]
# ## A folder of images and masks
#
# `train/images`, `train/masks` and the same below `test`: masks have the names of their images, and a
# number for each object. The left half, in three strengths of stain, is the train part; the right half
# is the test part. Below, the three train images and the test image.

# %%
shown = []
for number, strength in enumerate((0.7, 1.0, 1.3, 1.0)):
    part, left = ("train", 0) if number < 3 else ("test", 256)
    half = np.s_[:, left : left + 256]
    pixels = (hed2rgb(stains[half] * (strength, 0, 0)) * 255).clip(0, 255).astype(np.uint8)
    shown.append(pixels)
    for task, labels in (("glands", glands), ("nuclei", nuclei)):
        for kind, content in (("images", pixels), ("masks", labels[half].astype(np.uint16))):
            place = folder / task / part / kind
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(place / f"half{number}.png")
Image.fromarray(np.hstack(shown))

# %% [markdown]
# ## Fit
#
# One call a task. The encoder is trained along in a copy; each head reads images at the scale that its
# task needs (glands 1 um/px, nuclei 0.25). Few steps of small windows are enough here; the defaults
# (700 steps of 8 windows of 256 px) are for real sets and take minutes. The command line does the same:
# `pathencoder fit --head glands --data glands --mpp 0.5 --evaluate test --out head`.

# %%
test, right = shown[3], np.s_[:, 256:]
heads = {}
for task in ("glands", "nuclei"):
    heads[task] = pathencoder.fit(
        task,
        None,
        folder / task,
        mpp=MPP,
        evaluate="test",
        stain="ihc",
        steps=2 * STEPS if task == "glands" else STEPS,
        batch=4,
        side=128,
        progress=False,
    )
    print(heads[task].held_out.text(), end="\n\n")

# %% [markdown]
# Left: what the heads see. Middle: what they find, glands in green and nuclei in yellow. Right: the
# labels. Object scores ask for each object as a whole: a bridge between two glands or a gap inside one
# is few pixels and costs much, so that they need far more images and steps than Dice does. The test half
# is tissue of the same slide; figures on other patients are lower.

# %%
found = [heads[task].predict(test, mpp=MPP)[0] for task in ("glands", "nuclei")]
maps = [each.labels for each in found]
panels = [test, outlined(test, *maps), outlined(test, glands[right], nuclei[right])]
Image.fromarray(np.hstack(panels))

# %% [markdown]
# ## Files, and the head
#
# A label map, GeoJSON that opens in QuPath in its place, a table of measurements, and an overlay; for a
# slide `head.predict_slide("slide.svs")` goes over all tissue, region by region. A saved head holds the
# weights, the encoder's included, as safetensors, and gives the same result.

# %%
written = found[1].write(folder / "found", "half")
print(*sorted(path.name for path in written), sep="\n")
table = found[1].table
print(f"{len(found[1])} nuclei, median area {np.median(table.area_um2):.0f} um2")
heads["nuclei"].save(folder / "head")
again = pathencoder.load_head(folder / "head").predict(test, mpp=MPP)[0]
print("the same after a reload:", bool((again.labels == maps[1]).all()))

# %% [markdown]
# ## Real sets
#
# GlaS and MoNuSeg have licences under which their images are not shown here. Where their folders
# lie beside the repository (shared/data/nuclei, as table and images), a fit of as few steps on some of
# the train patients is scored on others of the train part, to see what such a short fit is worth;
# test parts are left alone. `pathencoder fit --head glands --data FOLDER --mpp 0.62` with the
# defaults is what a real fit is.

# %%
import csv

places = (up / "shared/data/nuclei" for up in Path.cwd().resolve().parents)
real = next((place for place in places if (place / "glas/meta.csv").is_file()), None)


def short_table(name, most):
    """A table of the first images of the train part; every fourth patient is held out."""
    with (real / name / "meta.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    patients = sorted({row["slide_id"] for row in rows})
    file = folder / f"{name}.csv"
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "group", "split", "mpp"])
        for row in rows[:most]:
            part = "val" if patients.index(row["slide_id"]) % 4 == 3 else "train"
            image = real / name / row["file"]
            table.writerow([image, row["slide_id"], part, row["mpp"] or 0.62])
    return file


if real is None or STEPS <= 2:
    print("no GlaS and MoNuSeg here")
else:
    for name, task, most in (("glas", "glands", 60), ("monuseg", "nuclei", 12)):
        head = pathencoder.fit(
            task, None, short_table(name, most), evaluate="val", steps=STEPS, batch=4, side=192,
            progress=False,
        )  # fmt: skip
        print(head.held_out.text(), end="\n\n")
