"""k-NN accuracy on labelled train parts during a run."""

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
from training.data.labels import LabelRow, read_label_rows
from training.data.spaced import evenly_spaced
from training.monitor.collapse import spread


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """Tiles of the train part of a labelled folder, never of its test part.

    Attributes:
        name: The folder's name.
        tiles: Normalised float [N, 3, px, px].
        labels: int [N].
        groups: str [N], patient or slide.
    """

    name: str
    tiles: Tensor
    labels: np.ndarray
    groups: np.ndarray


def labelled_set(folder: Path, spec: EncoderSpec, *, px: int, most: int = 400) -> LabelledSet:
    """Read tiles of a labelled folder that k-NN compares during training.

    Args:
        folder: A folder with labels.csv; only rows of its train part or folds are read.
        spec: Normalisation and mpp of the encoder.
        px: Side of the tiles in pixels; small, as the tiles stay in memory.
        most: Rows to read at most, evenly spaced.

    Returns:
        The tiles.

    Raises:
        ConfigError: labels.csv is refused (see read_label_rows), or all rows are of one group.
        ImageError: A tile cannot be decoded.
    """
    from pathencoder.images import open_image

    rows = label_rows(folder)
    rows = [rows[i] for i in evenly_spaced(len(rows), most)]
    transform = Transform(dataclasses.replace(spec, input_size=px, resize_size=None))
    groups = np.array([r.group for r in rows])
    return LabelledSet(
        folder.name,
        torch.stack([transform(open_image(folder / r.file)) for r in rows]),
        np.unique([r.label for r in rows], return_inverse=True)[1],
        groups,
    )


def label_rows(folder: Path) -> list[LabelRow]:
    """The rows of a labelled folder that may be used during training, not of held-out parts.

    Raises:
        ConfigError: As `labelled_set`.
    """
    rows = read_label_rows(folder / "labels.csv", choose=True)
    if len({row.group for row in rows}) < 2:
        raise ConfigError(
            f"{folder / 'labels.csv'}: k-NN looks for neighbours in other groups, and all rows are"
            " of one. Give the rows their groups, or remove the set from run.knn_sets"
        )
    return rows


@torch.no_grad()
def knn_report(network: nn.Module, spec: EncoderSpec, sets: list[LabelledSet]) -> dict[str, float]:
    """k-NN accuracy on labelled sets, and signs of collapse on the first of them.

    Args:
        network: The encoder's network, on any device; its mode is restored.
        spec: How its output is read.
        sets: The labelled sets.

    Returns:
        knn_NAME: `knn_accuracy` on each set; feature_std and rankme as `spread` has them.
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
    """Balanced accuracy of classification by the k nearest rows (cosine) of other groups.

    Args:
        x: Embeddings, float [N, D].
        labels: int [N].
        groups: [N]; rows of the same group are not compared.
        k: Number of neighbours.
    """
    predicted = metrics.knn_predict(x, x, labels, k=k, groups=(groups, groups))
    return metrics.balanced_accuracy(labels, predicted)
