# %% [markdown]
# # Load an encoder and embed images
#
# What an encoder says about itself, embeddings of images in any form, features of each place in an
# image, nearest tiles, and other encoders by name. It needs `pip install 'pathencoder[nuclei]'`
# (for scikit-image, whose picture is used) and no network connection.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image
from skimage import data

import pathencoder
from pathencoder import pictures
from pathencoder.pretrained.catalogue import catalogue

STEPS = int(os.environ.get("PATHENCODER_NOTEBOOK_STEPS", 16))  # tiles a side, for the nearest tiles
folder = Path(mkdtemp())

# %% [markdown]
# ## Load
#
# Without a name it is the bundled encoder: weights are part of the package. It says at which scale it
# reads tiles (micrometres per pixel), which stains it was trained on, and what its licence allows.

# %%
encoder = pathencoder.load_encoder()
print(encoder)

# %%
spec = encoder.spec
print("trained on: ", spec.training)
print("stains:     ", ", ".join(spec.stains))
print("scale:      ", spec.mpp, "um/px")
print("input:      ", spec.input_size, "px; mean", spec.mean, "std", spec.std)
print("licence:    ", spec.licence, "- commercial use:", "allowed" if spec.commercial else "ask")

# %% [markdown]
# ## Embed
#
# A path, an array, a PIL image, a tensor, a folder, or a list of these: a row an image, float32. The
# picture is a colon with DAB (brown, FHL2) and hematoxylin (blue); scikit-image ships it, and
# pathencoder the same as a JPEG. Resizing and normalisation are part of the encoder.

# %%
picture = data.immunohistochemistry()
jpeg = Path(pathencoder.__file__).parent / "example.jpg"
rows = encoder.encode([picture, jpeg, Image.fromarray(picture)])
print(rows.shape, rows.dtype)


def cosine(a, b):
    """Cosine of the angle between two embeddings."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


print(f"array and PIL image: cosine {cosine(rows[0], rows[2]):.4f}")
print(f"array and JPEG:      cosine {cosine(rows[0], rows[1]):.4f}")
Image.fromarray(picture)

# %% [markdown]
# **Scale.** Without `mpp` an image is resized whole to the input size; with it, it is resampled to the
# encoder's scale and cropped around its centre, or padded with white. The two are other images to the
# network, so use one way for all of your tiles. The picture does not state its scale; 0.5 is assumed.

# %%
tile = picture[144:368, 144:368]  # 224 px, the input size
whole, centre, own = encoder.encode([picture, tile, tile], mpp=[0.5, 0.5, 0.25])
print(f"picture at 0.5 um/px and its middle: cosine {cosine(whole, centre):.4f} (the same pixels)")
print(f"the middle, called 0.25 um/px:       cosine {cosine(centre, own):.4f} (half as large)")

# %% [markdown]
# **Many files.** A folder is read in natural order; `return_keys=True` gives the names. A bad file
# does not stop the others with `on_error="nan"`. The command line does the same and writes a feature
# file: `pathencoder encode tiles/ --out features`.

# %%
for number, y in enumerate(range(0, 512, 128)):
    Image.fromarray(picture[y : y + 128, :128]).save(folder / f"tile{number}.png")
(folder / "tile4.png").write_text("not an image")
rows, keys = encoder.encode(folder, on_error="nan", return_keys=True, progress=False)
for key, row in zip(keys, rows):
    print(key, "could not be read" if np.isnan(row).any() else row[:3].round(3))

# %% [markdown]
# ## Features of each place
#
# An embedding is one vector a tile. `output="dense"` gives the last map of the network (the patch
# tokens of a transformer); `encoder.pyramid` gives the maps of its stages, from fine to coarse, which
# the heads for glands and nuclei read. Here images may have any size.

# %%
x = encoder.transform(picture)[None]  # float32 [1, 3, 224, 224], normalised
features = encoder(x)  # differentiable
print("embedding", tuple(features.embedding.shape), " dense", tuple(features.dense.shape))
maps, strides = encoder.pyramid(x)
for found, stride in zip(maps, strides):
    print(f"stride {stride:2}: {tuple(found.shape)}")

# %% [markdown]
# The first three principal components of the maps as red, green and blue (middle), and the
# similarity of each place to the marked one, in the brown epithelium of a crypt (right; yellow:
# similar). Nothing was trained for this picture. `pathencoder demo --image mine.png` draws the same.

# %%
dense = pictures.dense_map(encoder, picture)
point = (402, 92)
likeness = pictures.likeness(dense, *pictures.cell_of(dense, picture, *point))
colours = pictures.enlarge(pictures.pca_colours(dense), picture)
similar, _ = pictures.likeness_colours(likeness, picture)
panels = [pictures.mark(picture, *point), colours, pictures.mark(similar, *point)]
print("maps joined on one grid:", dense.shape)
Image.fromarray(np.hstack([np.asarray(panel) for panel in panels]))

# %% [markdown]
# ## Nearest tiles
#
# A grid of tiles, and for four of them (left) those whose embeddings have the largest cosine, tiles
# that overlap it or each other left out. Embeddings are centred first: what all tiles of a slide share
# would hide how they differ.

# %%
side, grid = 64, np.linspace(0, 512 - 64, STEPS).astype(int)
corners = np.array([(x, y) for y in grid for x in grid])
tiles = [picture[y : y + side, x : x + side] for x, y in corners]
rows = encoder.encode(tiles, progress=False)
rows -= rows.mean(0)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)


def nearest(query, count=7):
    """The query and the tiles most like it, without overlaps."""
    kept = []
    for i in np.argsort(-rows @ rows[query]):
        if all(np.abs(corners[i] - corners[j]).max() >= side for j in kept):
            kept.append(i)
    return kept[:count]


lines = []
for place in ((400, 90), (230, 230), (90, 310), (215, 430)):  # x and y in the picture
    query = int(np.abs(corners + side // 2 - place).sum(1).argmin())
    found = nearest(query)
    line = np.full((side + 4, 7 * (side + 4), 3), 255, np.uint8)
    for column, i in enumerate(found):
        left = column * (side + 4)
        line[:side, left : left + side] = tiles[i]
    lines.append(line)
    print(f"tile at {tuple(corners[query].tolist())}: cosines", (rows[found] @ rows[query])[1:4].round(2))
sheet = Image.fromarray(np.vstack(lines))
sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.BICUBIC)

# %% [markdown]
# ## Other encoders, and no network
#
# The same call loads public encoders, each with its own preprocessing and readout; their licences
# and access terms differ. `pathencoder info NAME` shows what is known of one.

# %%
print("commercial use, H&E:")
print(*pathencoder.list_encoders(commercial=True, stain="he"), sep=", ")
for name in ("uni2-h", "virchow2", "phikon-v2", "h-optimus-1"):
    known = catalogue()[name]
    scale = f"{known.mpp} um/px" if known.mpp else "several scales"
    print(f"{name:12} {known.dim} numbers, {scale}, {known.licence}")

# %% [markdown]
# Weights of these come from the Hugging Face Hub once, at a pinned revision. A machine without a
# network says what is missing and how to bring it:

# %%
try:
    pathencoder.load_encoder("phikon-v2", local_files_only=True, cache_dir=folder / "empty")
except pathencoder.PathEncoderError as error:
    print(type(error).__name__, "-", str(error).split(". Looked in")[0])
    print("On a connected machine: `pathencoder fetch phikon-v2`")

# %% [markdown]
# An encoder is saved to a folder and loaded from it, with the same numbers:

# %%
encoder.save_pretrained(folder / "mine")
again = pathencoder.load_encoder(folder / "mine")
print("the same:", np.array_equal(again.encode(picture), encoder.encode(picture)))

# %% [markdown]
# Next: classify tiles (`classify_tiles.ipynb`), segment (`segment.ipynb`), count cells
# (`count_cells.ipynb`), and whole slides (`slide_to_heatmap.ipynb`).
