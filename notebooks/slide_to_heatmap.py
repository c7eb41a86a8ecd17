# %% [markdown]
# # From a slide to a heat map
#
# Tissue, features, and four pictures of them: features as colours, the similarity to one tile, and the score of a linear classifier,
# each lined up with the slide. It needs `pip install 'pathencoder[wsi,nuclei,heads]'` and no network connection.
#
# The slide is made of scikit-image's immunohistochemistry picture (DAB, brown, and hematoxylin, blue), so that what the maps should
# show is known: the brown fades from left to right. For a slide of your own, set `slide` to its path and leave the next cell out.

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

folder = Path(mkdtemp())

# %%
picture = data.immunohistochemistry()
section = np.block([[[picture], [picture[:, ::-1]]], [[picture[::-1]], [picture[::-1, ::-1]]]])
section = np.tile(section, (2, 3, 1))[:1600, :2600]
height, width, _ = section.shape

stains = rgb2hed(section)
stains[..., 2] *= np.linspace(1, 0, width)[:, None]  # less and less DAB
section = hed2rgb(stains) * 255

y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
angle = np.arctan2(y, x)
outline = (x**2 + y**2) ** 0.5 < 0.86 + 0.05 * np.sin(5 * angle) + 0.03 * np.sin(11 * angle)
glass = 242 + np.random.default_rng(0).normal(0, 1, (height, width, 1))
pixels = np.where(outline[..., None], section, glass).clip(0, 255).astype(np.uint8)

slide = folder / "slide.tif"
with tifffile.TiffWriter(slide) as file:
    for level in (1, 4):
        small = np.asarray(Image.fromarray(pixels).reduce(level))
        scale = {"resolution": (2e4 / level, 2e4 / level), "resolutionunit": "CENTIMETER"}  # 0.5 um per pixel
        file.write(small, tile=(256, 256), photometric="rgb", compression="deflate", **scale)

# %% [markdown]
# ## Tissue and features
#
# One call finds the tissue, lays a grid of tiles over it, embeds every tile and writes the feature file. Half a tile of overlap makes
# the maps finer. The command line does the same: `pathencoder encode slide.tif --as slides --overlap 112 --pictures --out features`.
# Below, the tissue is outlined in green and the tiles are blue squares.

# %%
encoder = pathencoder.load_encoder()
features = pathencoder.encode_slide(
    slide, folder / "slide.h5", encoder=encoder, overlap_px=112, picture=folder / "tissue.png"
)
print("features:", features.rows.shape, "corners of the tiles:", features.coords.shape)
print(*features.notes, sep="\n")
Image.open(folder / "tissue.png").reduce(2)

# %% [markdown]
# ## Features as colours
#
# The first three principal components as red, green and blue: tiles of one colour look alike to the encoder.

# %%
pathencoder.draw_features(folder / "slide.h5")

# %% [markdown]
# ## Similarity to one tile
#
# The tile is marked. `pathencoder explore slide.h5` writes a page in which a click on a tile does this.

# %%
pathencoder.draw_features(folder / "slide.h5", "similarity", tile=(560, 800))

# %% [markdown]
# ## A linear score
#
# Thirty tiles get a label, here by how brown they are (in your work by a pathologist): positive or negative. A logistic regression on
# their features then gives every tile of the slide a score.

# %%
opened = pathencoder.open_slide(slide)
side = round(features.attributes["tile_side_level0"])
brown = np.array([rgb2hed(opened.read(x, y, 0, side, side))[..., 2].mean() for x, y in features.coords.tolist()])
opened.close()

labelled = np.random.default_rng(0).choice(len(brown), 30, replace=False)
positive = brown[labelled] > np.median(brown[labelled])
classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(features.rows[labelled], positive)
score = classifier.decision_function(features.rows)

rest = np.setdiff1d(np.arange(len(brown)), labelled)
correlation = np.corrcoef(score[rest], brown[rest])[0, 1]
print(f"{len(rest)} tiles without a label: correlation of score and brown {correlation:.2f}")

# %%
pathencoder.draw_features(folder / "slide.h5", "values", values=score, title="Score of a tile: positive for DAB")

# %% [markdown]
# The tiles with the lowest scores (upper row) and the highest (lower row):

# %%
order = np.argsort(score)
opened = pathencoder.open_slide(slide)
rows = [[opened.read(*features.coords[i].tolist(), 0, side, side) for i in part] for part in (order[:6], order[-6:])]
opened.close()
Image.fromarray(np.block([[[tile] for tile in row] for row in rows])).reduce(2)
