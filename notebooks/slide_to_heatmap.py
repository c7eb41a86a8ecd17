# %% [markdown]
# # From a slide to a heat map
#
# Tissue, features, and four pictures of them: features as colours, the similarity to one tile,
# and the score of a linear classifier, each lined up with the slide. It needs `pip install
# 'pathencoder[wsi,nuclei,heads]'` and no network connection.
#
# The slide is made of scikit-image's immunohistochemistry picture (DAB, brown, and hematoxylin,
# blue) as a small tissue microarray: round cores of which each column has less DAB than the one
# before, so that it is known what the maps should show. For a slide of your own, set `slide` to
# its path and leave the next cell out.

# %%
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import tifffile
from PIL import Image
from skimage import data
from skimage.color import hed2rgb, rgb2hed
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pathencoder

folder, random = Path(mkdtemp()), np.random.default_rng(0)

# %%
stains = rgb2hed(data.immunohistochemistry())
side, pitch = 512, 700
y, x = np.mgrid[:side, :side] - side / 2
core = (x**2 + y**2 < 245**2)[..., None]

glass = random.normal(250, 1, (2 * pitch, 4 * pitch, 1)).repeat(3, axis=2)
pixels = glass.clip(0, 255).astype(np.uint8)
for row in range(2):
    for column, amount in enumerate((1, 0.6, 0.3, 0)):
        faded = np.rot90(stains, row + column) * (1, 1, amount)  # hematoxylin, eosin, DAB
        colours = (hed2rgb(faded) * 255).astype(np.uint8)
        top, left = row * pitch + 94, column * pitch + 94
        there = pixels[top : top + side, left : left + side]
        there[:] = np.where(core, colours, there)

slide = folder / "slide.tif"
with tifffile.TiffWriter(slide) as file:
    for level in (1, 4):
        small = np.asarray(Image.fromarray(pixels).reduce(level))
        per_cm = 2e4 / level  # 0.5 um per pixel
        file.write(
            small,
            tile=(256, 256),
            photometric="rgb",
            compression="deflate",
            subfiletype=int(level > 1),
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
        )

# %% [markdown]
# ## Tissue and features
#
# One call finds the tissue, lays a grid of tiles over it, embeds every tile and writes the
# feature file. Half a tile of overlap makes the maps finer, and tiles that are less than half
# tissue are left out. The command line does the same: `pathencoder encode slide.tif --as slides
# --overlap 112 --min-tissue 0.5 --pictures --out features`. Below, the tissue is outlined in
# green and the tiles are blue squares.

# %%
encoder = pathencoder.load_encoder()
features = pathencoder.encode_slide(
    slide,
    folder / "slide.h5",
    encoder=encoder,
    overlap_px=112,
    min_tissue=0.5,
    picture=folder / "tissue.png",
)
print("features:", features.rows.shape, "corners of the tiles:", features.coords.shape)
Image.open(folder / "tissue.png").reduce(2)

# %% [markdown]
# ## Features as colours
#
# The first three principal components as red, green and blue: tiles of one colour look alike to
# the encoder.

# %%
pathencoder.draw_features(folder / "slide.h5")

# %% [markdown]
# ## Similarity to one tile
#
# The tile is marked. `pathencoder explore slide.h5` writes a page in which a click on a tile does
# this.

# %%
pathencoder.draw_features(folder / "slide.h5", "similarity", tile=(350, 350))

# %% [markdown]
# ## A linear score
#
# Thirty tiles get a label, here by how brown they are (in your work by a pathologist): positive
# or negative. A logistic regression on their features then gives every tile of the slide a score.

# %%
opened = pathencoder.open_slide(slide)
side = round(features.attributes["tile_side_level0"])
tiles = [opened.read(x, y, 0, side, side) for x, y in features.coords.tolist()]
opened.close()
brown = np.array([rgb2hed(tile)[..., 2].mean() for tile in tiles])

labelled = random.choice(len(brown), 30, replace=False)
positive = brown[labelled] > np.median(brown[labelled])
classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
classifier.fit(features.rows[labelled], positive)
score = classifier.decision_function(features.rows)

rest = np.setdiff1d(np.arange(len(brown)), labelled)
correlation = np.corrcoef(score[rest], brown[rest])[0, 1]
print(f"{len(rest)} tiles without a label: correlation of score and brown {correlation:.2f}")

# %%
pathencoder.draw_features(
    folder / "slide.h5", "values", values=score, title="Score of a tile: positive for DAB"
)

# %% [markdown]
# The tiles with the lowest scores (upper row) and the highest (lower row):

# %%
order = np.argsort(score)
rows = [[tiles[i] for i in part] for part in (order[:6], order[-6:])]
Image.fromarray(np.block([[[tile] for tile in row] for row in rows])).reduce(2)
