"""What an encoder makes of the same tile in another stain.

Centred cosines, effective rank, and k-NN under shifts that no training saw.

Raw cosines are near 1 for any network, so embeddings are centred first; and a collapsed encoder
would look stable, so the effective rank of the embeddings stands beside every cosine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.images import open_image
from pathencoder.metrics import balanced_accuracy, knn_predict
from training import augment
from training.evaluation.encoders import Subject
from training.evaluation.probe import NEIGHBOURS, Labels
from training.evaluation.sets import ProbeSet
from training.monitor.collapse import spread

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]  # [H, W, 3]
Shift = Callable[[Image, np.random.Generator], Image]
_LUMA = np.array([0.299, 0.587, 0.114])


def hed(image: Image, rng: np.random.Generator) -> Image:
    """Amounts of hematoxylin, eosin and DAB s become s (1 + .05 N) + .05 N.

    The kind of shift that training used, three times less.
    """
    settings = augment.ColourSettings(he_scale=0.05, he_shift=0.05)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    view = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    moved = (
        augment.jitter_stain(view, torch.tensor([True]), settings, generator)[0]
        .permute(1, 2, 0)
        .numpy()
    )
    return _bytes(255 * moved)


def mix(image: Image, rng: np.random.Generator) -> Image:
    """Each channel a mixture of the three.

    Identity + .08 N, rows brought back to the sum of 1 so that white stays white.
    """
    matrix = np.eye(3) + 0.08 * rng.standard_normal((3, 3))
    return _bytes(image @ (matrix / matrix.sum(1, keepdims=True)).T)


def hue(image: Image, rng: np.random.Generator) -> Image:
    """Colours turned around the grey axis by 15 N degrees."""
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
    """Gamma exp(.2 N), then saturation times exp(.2 N)."""
    gamma, saturation = np.exp(0.2 * rng.standard_normal(2))
    x = 255 * (image / 255) ** gamma
    grey = (x @ _LUMA)[..., None]
    return _bytes(grey + saturation * (x - grey))


UNSEEN: dict[str, Shift] = {"mix": mix, "hue": hue, "tone": tone}


def under_shift(subject: Subject, s: ProbeSet, *, most: int = 200) -> dict[str, float]:
    """Centred cosine of tiles and their HED-shifted selves, and the effective rank of the tiles' embeddings (RankMe).

    At most `most` tiles of the set's reported part, evenly spaced.
    """
    chosen = _reported(s)
    chosen = chosen[:: max(1, len(chosen) // most)][:most]
    tiles = _open(s.folder, s.labels, chosen)
    plain, moved = subject.embed_images(tiles), subject.embed_images(_shifted(tiles, hed, seed=0))
    return {
        "centred_cosine": round(centred_cosine(plain, moved), 4),
        "rank": round(spread(torch.from_numpy(plain))["rankme"], 1),
    }


def knn_under_shifts(subject: Subject, s: ProbeSet, *, draws: int = 5) -> dict[str, list[float]]:
    """Balanced accuracy of 20 nearest neighbours among the unshifted train part, for the test part as it is ("clean", one value) and
    under every unseen shift (one value a draw)."""
    train, test = np.flatnonzero(s.labels.split == "train"), _reported(s)
    near, tiles = (
        subject.embed_images(_open(s.folder, s.labels, train)),
        _open(s.folder, s.labels, test),
    )

    def read(images: list[Image]) -> float:
        predicted = knn_predict(
            subject.embed_images(images).astype(np.float64),
            near.astype(np.float64),
            s.labels.y[train],
            k=NEIGHBOURS,
        )
        return round(balanced_accuracy(s.labels.y[test], predicted), 4)

    return {
        "clean": [read(tiles)],
        **{
            name: [read(_shifted(tiles, f, seed=d)) for d in range(draws)]
            for name, f in UNSEEN.items()
        },
    }


def background(subject: Subject, s: ProbeSet, *, most: int = 200) -> Floats:
    """[D]: the mean embedding of the set's train tiles, at most `most`.

    What scanners are compared around.
    """
    chosen = np.flatnonzero(s.labels.split == "train")
    mean: Floats = subject.embed_images(
        _open(s.folder, s.labels, chosen[:: max(1, len(chosen) // most)][:most])
    ).mean(0)
    return mean


def centred_cosine(plain: Floats, moved: Floats) -> float:
    """Mean cosine of rows of `plain` and `moved` [N, D] after the mean of `plain` is taken from both."""
    a, b = plain - plain.mean(0), moved - plain.mean(0)
    return float(
        (
            (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-12)
        ).mean()
    )


def _reported(s: ProbeSet) -> NDArray[np.int64]:
    return np.flatnonzero(s.labels.split == s.part) if s.part else np.arange(len(s.labels.files))


def _open(folder: Path, labels: Labels, rows: NDArray[np.int64]) -> list[Image]:
    return [open_image(folder / labels.files[i]) for i in rows]


def _shifted(tiles: list[Image], shift: Shift, *, seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [shift(tile, rng) for tile in tiles]


def _bytes(image: NDArray) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
