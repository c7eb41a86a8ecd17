# %% [markdown]
# # Classify tiles: from a probe to an adapted encoder
#
# Heads on frozen embeddings, what a report says and does not say, abstention, and an encoder that
# is adapted to the task. It needs `pip install 'pathencoder[heads,lora,nuclei]'` and no network
# connection.
#
# The tiles are cut from scikit-image's immunohistochemistry picture (DAB, brown, marks the
# epithelium; hematoxylin, blue, the nuclei). The brown is taken out, and the encoder sees nuclei
# alone: it has to tell epithelium from stroma, and the brown that it does not see is the truth. In
# your work the classes come from a pathologist, in a table of the same form.

# %%
import csv
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image, ImageDraw
from skimage import data
from skimage.color import hed2rgb, rgb2hed
from skimage.filters import gaussian, threshold_otsu

import pathencoder

EPOCHS = int(os.environ.get("PATHENCODER_NOTEBOOK_STEPS", 8))  # of the adaptation
folder, random = Path(mkdtemp()), np.random.default_rng(0)

picture = data.immunohistochemistry()
stains = rgb2hed(picture)  # hematoxylin, eosin, DAB
smooth = gaussian(stains[..., 2], 4)
brown = smooth > threshold_otsu(smooth)
white = gaussian(picture.mean(2), 4, preserve_range=True) > 225

# %% [markdown]
# ## A table of tiles
#
# Sixteen regions of the picture stand for sixteen patients: each gets its own strength of stain, as
# slides of different days have. Neighbouring tiles overlap and look alike, so tiles of one region
# are one *group*: they are never in train and test at once. Tiles at the border of epithelium and
# stroma of which half is epithelium, and tiles of glass, are left out.

# %%
side, step, region = 48, 16 if EPOCHS > 2 else 32, 128


def nuclei_of(left, top, width, strength):
    """The hematoxylin of a part of the picture, with the given strength."""
    part = stains[top : top + width, left : left + width] * (strength, 0, 0)
    return (hed2rgb(part) * 255).clip(0, 255).astype(np.uint8)


def class_of(left, top):
    """Epithelium or stroma; None for mixed tiles and for glass."""
    there = np.s_[top : top + side, left : left + side]
    if white[there].mean() > 0.4:
        return None
    share = brown[there].mean()
    return "epithelium" if share > 0.6 else "stroma" if share < 0.4 else None


test = set(random.choice(16, 5, replace=False).tolist())
rows = []
for number in range(16):
    x0, y0 = number % 4 * region, number // 4 * region
    pixels = nuclei_of(x0, y0, region, random.uniform(0.4, 1.5))
    for y in range(0, region - side + 1, step):
        for x in range(0, region - side + 1, step):
            label = class_of(x0 + x, y0 + y)
            if label:
                file = folder / f"region{number:02d}_{x}_{y}.png"
                Image.fromarray(pixels[y : y + side, x : x + side]).save(file)
                part = "test" if number in test else "train"
                rows.append((file.name, label, f"region{number:02d}", part))

table = folder / "tiles.csv"
with table.open("w", newline="") as stream:
    csv.writer(stream).writerows([("path", "label", "group", "split"), *rows])
for part in ("train", "test"):
    labels = [row[1] for row in rows if row[3] == part]
    groups = len({row[2] for row in rows if row[3] == part})
    print(f"{part}: {labels.count('epithelium')} epithelium, {labels.count('stroma')} stroma,", end="")
    print(f" {groups} regions")


def sheet(files, columns=10):
    """Tiles side by side."""
    tiles = [np.asarray(Image.open(file)) for file in files]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return Image.fromarray(np.vstack(lines))


# %% [markdown]
# Epithelium in the upper row, stroma in the lower one:

# %%
shown = [
    folder / name
    for label in ("epithelium", "stroma")
    for name in random.permutation([row[0] for row in rows if row[1] == label])[:10]
]
sheet(shown)

# %% [markdown]
# ## The probe
#
# Logistic regression on frozen embeddings. Its strength is chosen by folds over the regions; the
# report is of folds that keep a region together, with intervals over regions, and `evaluate` reads
# the test part once. `max_error` sets the probability below which the head abstains, so that at most
# 5 % of the labels that it keeps are wrong on the folds. The command line does the same:
# `pathencoder fit --data tiles.csv --evaluate test --max-error 0.05 --out head`.

# %%
encoder = pathencoder.load_encoder()
head = pathencoder.fit("linear", encoder, table, evaluate="test", max_error=0.05)
print(head.report.text())

# %%
print(head.held_out.text())

# %% [markdown]
# With few patients the interval is wide, and that is the finding: hundreds of tiles are not hundreds
# of independent cases. Without the column `group` the same tiles give a better figure and no
# interval, because tiles of one region are then in train and in test at once:

# %%
files = [folder / row[0] for row in rows if row[3] == "train"]
labels = [row[1] for row in rows if row[3] == "train"]
mixed = pathencoder.fit("linear", encoder, files, labels=labels)
print("folds over regions:", head.report.balanced_accuracy)
print("folds over tiles:  ", mixed.report.balanced_accuracy)
print("\n".join(mixed.report.notes))

# %% [markdown]
# ## Other heads
#
# Each is one word. The embeddings are kept on disk: these fits encode nothing. `prototypes` are the
# means of a few tiles a class.

# %%
for kind, options in (("linear", {}), ("mlp", {}), ("knn", {}), ("prototypes", {"shots": 5})):
    other = pathencoder.fit(kind, encoder, table, evaluate="test", **options)
    print(f"{kind:10}  folds {other.report.balanced_accuracy}  test {other.held_out.balanced_accuracy}")

# %% [markdown]
# ## Predictions, and abstention
#
# A saved head predicts exactly the same numbers. Probabilities are scaled by a temperature that the
# folds set. The tiles of the test part on which the head abstains:

# %%
head.save(folder / "head")
again = pathencoder.load_head(folder / "head", encoder=encoder)
truth = [row for row in rows if row[3] == "test"]
found = again.predict([folder / row[0] for row in truth])
right = np.array([label == row[1] for label, row in zip(found.labels, truth)])
print(f"temperature {again.temperature:.2f}, threshold {again.threshold:.2f}")
print(f"all {len(right)} tiles: {right.mean():.1%} right")
print(f"{(~found.abstained).sum()} labels kept: {right[~found.abstained].mean():.1%} right")
unsure = [folder / truth[i][0] for i in np.flatnonzero(found.abstained)]
sheet(unsure[:20] or shown[:10])

# %% [markdown]
# ## An adapted encoder
#
# LoRA trains small matrices beside the layers of the encoder, along with the linear layer. A fifth
# of the train regions ends the training; the comparison with the frozen encoder is on the same test
# tiles, as a paired difference with an interval over regions. An interval that holds 0 says that
# this set cannot tell the two apart; then the frozen encoder is the better choice, because one set of
# embeddings serves every task. Eleven small regions of one picture are too few to adapt to:

# %%
adapted = pathencoder.adapt(encoder, table, "lora", evaluate="test", epochs=EPOCHS, seed=0)
print(adapted.report.text())

# %%
adapted.save(folder / "adapted")
mine = pathencoder.load_encoder(folder / "adapted")
print(mine.spec.name, mine.spec.dim)

# %% [markdown]
# ## The whole picture
#
# The probability of epithelium of a tile around each point, from nuclei alone (red: high), beside
# the brown that the encoder did not see. Train regions are part of the picture; those of the test
# part have a black frame. Glass and the lumen of a gland get a colour too: the head knows two
# classes only.

# %%
whole = nuclei_of(0, 0, 512, 1)
corners = [(x, y) for y in range(0, 465, step) for x in range(0, 465, step)]
tiles = [whole[y : y + side, x : x + side] for x, y in corners]
probability = again.predict(tiles, progress=False).probabilities[:, list(again.classes).index("epithelium")]

sums, counts = np.zeros((512, 512)), np.zeros((512, 512))
for (x, y), value in zip(corners, probability):
    there = np.s_[y + 16 : y + side - 16, x + 16 : x + side - 16]
    sums[there] += value
    counts[there] += 1
inner = np.s_[16:496, 16:496]
score = (sums / np.maximum(counts, 1))[..., None]
colour = score * (215, 48, 39) + (1 - score) * (69, 117, 180)
overlay = np.where(counts[..., None] > 0, 0.55 * whole + 0.45 * colour, whole).astype(np.uint8)
panels = [Image.fromarray(pixels) for pixels in (picture, whole, overlay)]
for panel in panels:
    for number in test:
        x, y = number % 4 * region, number // 4 * region
        ImageDraw.Draw(panel).rectangle((x, y, x + region - 1, y + region - 1), outline=(0, 0, 0), width=2)

tissue = ~white[inner]
agree = ((score[inner][..., 0] > 0.5) == brown[inner])[tissue].mean()
print(f"pixels of tissue on the right side of one half: {agree:.1%}")
Image.fromarray(np.hstack([np.asarray(panel) for panel in panels]))
