"""Small images with labels, in the layouts that people have."""

import json

import numpy as np
from PIL import Image

SIDE = 48
DISKS = ((14, 12, 6), (34, 30, 8), (12, 38, 5))  # x, y and radius, pixel centres at whole numbers


def labels(disks=DISKS, side=SIDE):
    """uint16 [side, side]: a number a disk."""
    y, x = np.mgrid[:side, :side]
    found = np.zeros((side, side), np.uint16)
    for number, (cx, cy, radius) in enumerate(disks, 1):
        found[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = number
    return found


def image(disks=DISKS, side=SIDE):
    """uint8 [side, side, 3]: dark disks."""
    dark = labels(disks, side)[..., None] > 0
    return np.where(dark, (110, 60, 140), (235, 215, 230)).astype(np.uint8)


def write(file, pixels):
    """An array as an image file, or as .npy."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file)
    return file


def pair(root, stem, *, images="images", masks="masks", end="", made=None, suffix=".png"):
    """An image and its mask below a folder."""
    write(root / images / f"{stem}.png", image())
    return write(root / masks / f"{stem}{end}{suffix}", labels() if made is None else made)


def square(left, top, size):
    """The corners of a square, closed."""
    right, bottom = left + size, top + size
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(kind, coordinates, name=None, object_type="annotation", **more):
    """A feature of GeoJSON as QuPath writes it."""
    properties = {"objectType": object_type}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **more}


def geojson(file, *features):
    """A FeatureCollection."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return file
