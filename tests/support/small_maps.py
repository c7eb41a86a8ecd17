"""A slide in memory with three kinds of tissue in known places, and feature files of its tiles."""

import dataclasses

import numpy as np
from small_slides import MemorySlide, section

from pathencoder.features import layouts
from pathencoder.features.finished import slide_facts
from pathencoder.features.identity import SlideIdentity, Stat, identify_slide
from pathencoder.features.provenance import TISSUE, Provenance
from pathencoder.features.store import Content
from pathencoder.features.writer import write_features

TILE = 100  # level-0 pixels
KINDS = {  # colour of the tissue, and its box in tiles: left, top, right, bottom
    "pink": ((215, 120, 170), (1, 1, 6, 4)),
    "blue": ((110, 100, 190), (6, 1, 10, 4)),
    "brown": ((150, 100, 60), (2, 5, 8, 8)),
}
WIDTH, HEIGHT = 1200, 900


def slide(path, kinds=tuple(KINDS), **options):
    """The slide with these kinds; `path` becomes a file whose content identifies it."""
    pixels = section(WIDTH, HEIGHT, ())
    for colour, box in (KINDS[kind] for kind in kinds):
        x0, y0, x1, y1 = (TILE * v for v in box)
        pixels[y0:y1, x0:x1] = section(x1 - x0, y1 - y0, ((0, 0, x1 - x0, y1 - y0),), colour)
    path.write_bytes(b"a slide in memory")
    return MemorySlide(pixels, path=path, **options)


def corners():
    """The top left corners of the tiles, [N, 2], and the kind of each tile."""
    boxes = [box for _, box in KINDS.values()]
    places = [
        (TILE * column, TILE * row, number)
        for number, (left, top, right, bottom) in enumerate(boxes)
        for row in range(top, bottom)
        for column in range(left, right)
    ]
    found = np.array(sorted(places, key=lambda place: (place[1], place[0])), np.int64)
    return found[:, :2], found[:, 2]


def rows(kinds, dim=96, seed=0):
    """Features of tiles: near one direction for each kind, all with a large common part."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(len(KINDS), dim))
    common = np.full(dim, 3.0)
    noise = 0.6 * random.normal(size=(len(kinds), dim))
    return (common + centres[kinds] + noise).astype(np.float32)


def feature_file(folder, name="slide", layout="trident", made_from=None, **changes):
    """Write the feature file of the slide; returns its path.

    Args:
        made_from: The slide's file; None: one that does not exist.
        changes: `features`, `places`, `overlap_px`, `encoder`, `tissue`, `recipe` (attributes of
            `Provenance`), or attributes of `Place`.
    """
    places, kinds = corners()
    places = changes.pop("places", places)
    features = changes.pop("features", rows(kinds)[: len(places)])
    overlap = changes.pop("overlap_px", 0)
    encoder = changes.pop("encoder", "small")
    known = SlideIdentity(f"/data/{name}.svs", Stat(99, 2, 7), "ab" * 16)
    identity = known if made_from is None else identify_slide(made_from)
    provenance = Provenance(
        encoder=encoder,
        revision=None,
        sha256="12" * 32,
        output="embedding",
        transform="whole to 50 px",
        mpp=None,
        target_mpp=1.0,
        overlap_px=overlap,
        min_tissue=0.25,
        tissue=changes.pop("tissue", TISSUE),
    )
    provenance = dataclasses.replace(provenance, **changes.pop("recipe", {}))
    values = {"mpp": 0.5, "target_mpp": 1.0, "side": float(TILE), "tile_px": 50}
    place = layouts.Place(
        slide=f"{name}.svs",
        coords=places,
        overlap_px=overlap,
        **{"size": (WIDTH, HEIGHT), **values, **changes},
    )
    facts = {"slide": f"{name}.svs", "slide_mpp_source": "by hand", "notes": "a note"}
    content = Content(
        provenance, (), {**facts, **slide_facts(identity)}, place=place, layout=layout
    )
    path = layouts.path_of(folder, name, layout)
    write_features(
        path, content, len(features), features.shape[1:], lambda start, stop: features[start:stop]
    )
    return path
