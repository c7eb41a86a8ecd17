"""What a probe predicts, and the files in which it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.files import whole_file

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What one seed's probe predicts for the n evaluated images, in the order of the table.

    Attributes:
        y: True class numbers [n].
        groups: Their groups [n].
        predicted: Classes by logistic regression [n].
        probability: Its probabilities [n, classes].
        neighbours: Classes by k-NN [n].
        shots: Number of images a class -> balanced accuracy of few-shot classification.
        cs: C of the logistic regression of each fold, in order; () in older files.
    """

    y: Ints
    groups: NDArray[np.str_]
    predicted: Ints
    probability: Floats
    neighbours: Ints
    shots: dict[int, float]
    cs: tuple[float, ...] = ()


# Training runs of one encoder, one for each training seed, and in each the outcomes by probe seed.
Runs = list[list[Outcome]]


def save_outcomes(path: Path, outcomes: list[Outcome]) -> None:
    """Write outcomes as an .npz of plain arrays.

    Args:
        path: The file.
        outcomes: One outcome a seed.

    Raises:
        StoreError: It cannot be written.
    """
    arrays: dict[str, Any] = {}
    for seed, o in enumerate(outcomes):
        values = {
            "y": o.y,
            "groups": o.groups,
            "predicted": o.predicted,
            "probability": o.probability,
            "neighbours": o.neighbours,
            "cs": np.array(o.cs),
        }
        arrays |= {f"{seed}.{k}": v for k, v in values.items()}
        arrays[f"{seed}.shots"] = np.array([[k, v] for k, v in o.shots.items()])
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_outcomes(path: Path) -> list[Outcome]:
    """Read what `save_outcomes` wrote: one outcome a seed."""
    with np.load(path, allow_pickle=False) as kept:
        seeds = sorted({int(k.partition(".")[0]) for k in kept})
        return [
            Outcome(
                y=kept[f"{s}.y"],
                groups=kept[f"{s}.groups"],
                predicted=kept[f"{s}.predicted"],
                probability=kept[f"{s}.probability"],
                neighbours=kept[f"{s}.neighbours"],
                shots={int(k): float(v) for k, v in kept[f"{s}.shots"]},
                cs=tuple(kept[f"{s}.cs"].tolist()) if f"{s}.cs" in kept else (),
            )
            for s in seeds
        ]
