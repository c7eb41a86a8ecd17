"""Feature files of made-up slides: in a "tumour" slide some tiles lie apart, in a "normal" none."""

import numpy as np
import small_maps

from pathencoder.heads.slide.head import SlideHead
from pathencoder.heads.slide.model import Abmil
from pathencoder.heads.slide.record import FeatureRecord

DIM, TILES, FEW = 6, 24, 4
SHIFT = 8.0  # of the first feature, in standard deviations


def rows(label, seed, tiles=TILES):
    """float32 [tiles, DIM]; of a tumour slide, the tiles 5 to 8 are tumour."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(tiles, DIM)).astype(np.float32)
    if label == "tumour":
        found[5 : 5 + FEW, 0] += SHIFT
    return found


def places(count):
    """The corners of tiles in rows of six, [count, 2] in level-0 pixels."""
    numbers = np.arange(count)
    return small_maps.TILE * np.stack([numbers % 6 + 1, numbers // 6 + 1], axis=1)


def write(folder, name, features, layout="trident", **changes):
    """The feature file of one slide."""
    return small_maps.feature_file(
        folder, name=name, layout=layout, features=features, places=places(len(features)), **changes
    )


def folder(root, patients=12, each=1, layout="trident"):
    """ROOT/features and ROOT/slides.csv: half of the patients are of each class.

    Returns:
        The table and the folder of the features.
    """
    lines = ["slide,label,patient"]
    for patient in range(patients):
        label = "tumour" if patient % 2 else "normal"
        for n in range(each):
            name = f"S{patient}_{n}"
            write(root / "features", name, rows(label, 10 * patient + n), layout)
            lines.append(f"{name}.svs,{label},P{patient}")
    return table(root, lines), root / "features"


def table(root, lines):
    """ROOT/slides.csv with these lines."""
    file = root / "slides.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def head_that_attends(direction, level, common):
    """An "abmil" head whose attention is high where features lie along a direction beyond a level.

    Args:
        direction: Unit vector [D].
        level: Of the projection.
        common: What is subtracted from every feature.
    """
    dim = len(direction)
    arrays = {
        "mean": np.full(dim, common),
        "scale": np.ones(dim),
        "embed": direction[:, None],
        "embed_bias": np.zeros(1),
        "value": np.ones((1, 1)),
        "value_bias": np.full(1, -level),
        "gate": np.zeros((1, 1)),
        "gate_bias": np.full(1, 9.0),
        "score": np.full(1, 2.0),
        "out": np.array([[-1.0, 1.0]]),
        "out_bias": np.array([5.0, -5.0]),
    }
    member = {name: array.astype(np.float32) for name, array in arrays.items()}
    record = FeatureRecord(
        "small", None, "12" * 32, "embedding", dim, "whole to 50 px", 1.0, "fp32"
    )
    settings = {"bag": "slide", "seeds": 1}
    return SlideHead("abmil", Abmil((member,)), record, ("normal", "tumour"), settings)
