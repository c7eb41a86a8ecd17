"""k-NN on labelled train parts while a run goes.

Does the encoder get better at telling tissue apart?
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder import metrics, outputs
from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform
from training.labels import read_label_rows
from training.monitor.collapse import spread


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """A labelled folder's train part, read for watching a run: never its test part."""

    name: str
    tiles: Tensor  # normalised float [N, 3, px, px]
    labels: np.ndarray
    groups: np.ndarray


def labelled_set(folder: Path, spec: EncoderSpec, *, px: int, most: int = 400) -> LabelledSet:
    """Read at most `most` rows of split train or folds, evenly spaced, at `px` pixels (small.

    This runs inside training).
    """
    from pathencoder.images import open_image

    rows = read_label_rows(folder / "labels.csv", choose=True)
    rows = rows[:: max(1, len(rows) // most)][:most]
    transform = Transform(dataclasses.replace(spec, input_size=px, resize_size=None))
    groups = np.array([r.group for r in rows])
    if len(set(groups.tolist())) < 2:
        raise ConfigError(
            f"{folder / 'labels.csv'}: k-NN looks for neighbours in other groups, and all rows are"
            " of one. Give the rows their groups, or take the set out of run.knn_sets"
        )
    return LabelledSet(
        folder.name,
        torch.stack([transform(open_image(folder / r.file)) for r in rows]),
        np.unique([r.label for r in rows], return_inverse=True)[1],
        groups,
    )


@torch.no_grad()
def knn_report(network: nn.Module, spec: EncoderSpec, sets: list[LabelledSet]) -> dict[str, float]:
    """Balanced accuracy of 20 nearest neighbours (cosine) outside the tile's own group, one a set.

    Spread of the first set.
    """
    out: dict[str, float] = {}
    was_training = network.training
    device = next(network.parameters()).device
    network.eval()
    for s in sets:
        rows = torch.cat(
            [outputs.read(network, spec, part.to(device)).embedding for part in s.tiles.split(64)]
        ).cpu()
        if not out:
            out = spread(rows)
        out[f"knn_{s.name}"] = knn_accuracy(rows.numpy(), s.labels, s.groups)
    network.train(was_training)
    return out


def knn_accuracy(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, k: int = 20) -> float:
    """x: [N, D].

    Each row is classified by its k nearest rows of other groups; the mean over classes of the share
    that is right.
    """
    predicted = metrics.knn_predict(x, x, labels, k=k, groups=(groups, groups))
    return metrics.balanced_accuracy(labels, predicted)
