"""How an encoder's embeddings change when the stain of a tile changes.

Measured by cosines of centred embeddings, by their effective rank, and by k-NN under colour shifts
that no training uses. Raw cosines are near 1 for any network, so embeddings are centred first. A
collapsed encoder would look stable, so the effective rank is reported with every cosine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.images import open_image
from pathencoder.metrics import Interval, balanced_accuracy, grouped_bootstrap, knn_predict
from pathencoder.slides.reader import open_slide
from training import augment
from training.data.spaced import evenly_spaced
from training.evaluation.encoders import Subject
from training.evaluation.probe import NEIGHBOURS, Labels
from training.evaluation.sets import ProbeSet
from training.monitor.collapse import spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Image = NDArray[np.uint8]  # [H, W, 3]
Shift = Callable[[Image, np.random.Generator], Image]
CUTS = 4  # a region that several scanners scanned is cut into 4 x 4 fields
_LUMA = np.array([0.299, 0.587, 0.114])


def hed(image: Image, rng: np.random.Generator) -> Image:
    """Amounts s of hematoxylin, eosin and DAB become s (1 + .05 N) + .05 N.

    The kind of shift that training uses, at a third of its strength.
    """
    settings = augment.ColourSettings(he_scale=0.05, he_shift=0.05)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    view = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    moved = augment.jitter_stain(view, torch.tensor([True]), settings, generator)[0]
    return _bytes(255 * moved.permute(1, 2, 0).numpy())


def mix(image: Image, rng: np.random.Generator) -> Image:
    """Each channel becomes a mixture of the three, by the matrix identity + .08 N.

    Its rows are scaled to a sum of 1, so that white stays white.
    """
    matrix = np.eye(3) + 0.08 * rng.standard_normal((3, 3))
    return _bytes(image @ (matrix / matrix.sum(1, keepdims=True)).T)


def hue(image: Image, rng: np.random.Generator) -> Image:
    """Colours rotated around the grey axis by 15 N degrees."""
    angle = np.deg2rad(15 * rng.standard_normal())
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = (
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
    return _bytes(image @ turn.T)


def tone(image: Image, rng: np.random.Generator) -> Image:
    """Gamma exp(.2 N), then saturation multiplied by exp(.2 N)."""
    gamma, saturation = np.exp(0.2 * rng.standard_normal(2))
    x = 255 * (image / 255) ** gamma
    grey = (x @ _LUMA)[..., None]
    return _bytes(grey + saturation * (x - grey))


UNSEEN: dict[str, Shift] = {"mix": mix, "hue": hue, "tone": tone}


def under_shift(subject: Subject, s: ProbeSet, *, most: int = 200) -> dict[str, float]:
    """How far embeddings move under the HED shift.

    Args:
        subject: The encoder.
        s: The set; of its reported part tiles are taken, evenly spaced.
        most: How many tiles at most.

    Returns:
        `centred_cosine` of tiles and the same tiles shifted, and `rank`, the effective rank
        (RankMe) of the embeddings of the unshifted tiles.
    """
    chosen = _reported(s)
    chosen = chosen[evenly_spaced(len(chosen), most)]
    tiles = _open(s.folder, s.labels, chosen)
    plain, moved = subject.embed_images(tiles), subject.embed_images(_shifted(tiles, hed, seed=0))
    return {
        "centred_cosine": round(centred_cosine(plain, moved), 4),
        "rank": round(spread(torch.from_numpy(plain))["rankme"], 1),
    }


@dataclass(frozen=True)
class Neighbours:
    """What k-NN predicts of the tiles of a set's evaluated part, unchanged and under colour shifts.

    Attributes:
        y: Int64 [N], their classes.
        groups: [N], the groups (patients, slides) that they are of.
        unchanged: Int64 [N], predictions.
        shifted: Those under each shift of `UNSEEN`, one array a draw.
    """

    y: Ints
    groups: NDArray[np.str_]
    unchanged: Ints
    shifted: Mapping[str, Sequence[Ints]]


def knn_under_shifts(subject: Subject, s: ProbeSet, *, draws: int = 5) -> Neighbours:
    """k-NN of shifted tiles of the evaluated part among unshifted train tiles.

    Args:
        subject: The encoder.
        s: A set with a held-out part.
        draws: Draws of every shift.

    Raises:
        ConfigError: The set has no held-out part.
    """
    if s.part is None:
        raise ConfigError(
            f"{s.name}: k-NN under shifts needs a test part; this set has folds alone"
        )
    train, test = np.flatnonzero(s.labels.split == "train"), _reported(s)
    rows = subject.embed_images(_open(s.folder, s.labels, train)).astype(np.float64)
    tiles = _open(s.folder, s.labels, test)

    def predicted(images: list[Image]) -> Ints:
        queries = subject.embed_images(images).astype(np.float64)
        found: Ints = knn_predict(queries, rows, s.labels.y[train], k=NEIGHBOURS)
        return found

    shifted = {
        name: [predicted(_shifted(tiles, shift, seed=draw)) for draw in range(draws)]
        for name, shift in UNSEEN.items()
    }
    return Neighbours(s.labels.y[test], s.labels.groups[test], predicted(tiles), shifted)


def changed_by(sets: Sequence[Neighbours], shift: str) -> Interval:
    """The change of k-NN's balanced accuracy by a shift: mean over draws, then over sets.

    Args:
        sets: What was predicted of each set. One test part alone may be too small to tell: two
            readouts that are equal by folds differ by four points on 260 tiles.
        shift: A name of `UNSEEN`.

    Returns:
        Under the shift less unchanged, with its 95 % interval over the groups of all sets.
    """
    starts = np.cumsum([0, *(len(s.y) for s in sets)])

    def change(rows: Ints) -> float:
        of_sets = []
        for s, start, end in zip(sets, starts, starts[1:], strict=False):
            own = rows[(rows >= start) & (rows < end)] - start
            moved = [balanced_accuracy(s.y[own], p[own]) for p in s.shifted[shift]]
            of_sets.append(np.mean(moved) - balanced_accuracy(s.y[own], s.unchanged[own]))
        return float(np.mean(of_sets))

    groups = [f"{i} {group}" for i, s in enumerate(sets) for group in s.groups]
    classes = [f"{i} {label}" for i, s in enumerate(sets) for label in s.y]
    return grouped_bootstrap(change, groups, labels=classes)


def background(subject: Subject, s: ProbeSet, *, most: int = 200) -> Floats:
    """The mean embedding [D] of at most `most` train tiles, evenly spaced.

    It is the centre for comparing scanners.
    """
    chosen = np.flatnonzero(s.labels.split == "train")
    chosen = chosen[evenly_spaced(len(chosen), most)]
    mean: Floats = subject.embed_images(_open(s.folder, s.labels, chosen)).mean(0)
    return mean


def centred_cosine(plain: Floats, moved: Floats) -> float:
    """Mean cosine of the rows of `plain` and `moved` [N, D], less the mean of `plain`."""
    a, b = plain - plain.mean(0), moved - plain.mean(0)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths.clip(1e-12)).mean())


def fields_of(file: Path) -> list[Image]:
    """A slide in CUTS x CUTS pieces, row by row."""
    with contextlib.closing(open_slide(file)) as slide:
        image = slide.read(0, 0, 0, *slide.size)
    ys, xs = (np.linspace(0, n, CUTS + 1).astype(int) for n in image.shape[:2])
    return [image[ys[r] : ys[r + 1], xs[c] : xs[c + 1]] for r in range(CUTS) for c in range(CUTS)]


def _reported(s: ProbeSet) -> NDArray[np.int64]:
    return np.flatnonzero(s.labels.split == s.part) if s.part else np.arange(len(s.labels.files))


def _open(folder: Path, labels: Labels, rows: NDArray[np.int64]) -> list[Image]:
    return [open_image(folder / labels.files[i]) for i in rows]


def _shifted(tiles: list[Image], shift: Shift, *, seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [shift(tile, rng) for tile in tiles]


def _bytes(image: NDArray[np.floating]) -> Image:
    found: Image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return found
