"""What a run says of itself: JSON lines, a line for people, collapse figures, k-NN on labelled train parts."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pathencoder import network as readout
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform

log = logging.getLogger(__name__)


class Monitor:
    """Appends JSON lines to run/log.jsonl; every line has the step, wall seconds and CPU seconds of this process."""

    def __init__(self, run: Path) -> None:
        self._file = (run / "log.jsonl").open("a")
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line, and the same in words to the log."""
        line = {
            "kind": kind,
            "step": step,
            **{k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()},
            "wall_s": round(time.monotonic() - self._wall, 1),
            "cpu_s": round(time.process_time() - self._cpu, 1),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        words = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        log.info("%s step %d  %s", kind, step, words)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def spread(embeddings: Tensor) -> dict[str, float]:
    """Collapse figures of [N, D] embeddings. feature_std: mean standard deviation of the coordinates of unit vectors times
    sqrt(D), 1 when they fill the sphere, 0 when all are one. rankme: effective rank (Garrido et al. 2023, equation 1)."""
    unit = F.normalize(embeddings.float(), dim=1)
    std = unit.std(0).mean() * unit.shape[1] ** 0.5
    p = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    p = p / p.sum() + 1e-7
    return {"feature_std": float(std), "rankme": float(torch.exp(-(p * p.log()).sum()))}


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """A labelled folder's train part, read for watching a run: never its test part."""

    name: str
    tiles: Tensor  # normalised float [N, 3, px, px]
    labels: np.ndarray
    groups: np.ndarray


def labelled_set(folder: Path, spec: EncoderSpec, *, px: int, most: int = 400) -> LabelledSet:
    """Read at most `most` rows of split train or folds, evenly spaced, at `px` pixels (small: this runs inside training)."""
    from pathencoder.images import open_image

    with (folder / "labels.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("split", "") in ("train", "folds", "")]
    rows = rows[:: max(1, len(rows) // most)][:most]
    transform = Transform(dataclasses.replace(spec, input_size=px, resize_size=None))
    return LabelledSet(
        folder.name,
        torch.stack([transform(open_image(folder / r["file"])) for r in rows]),
        np.unique([r["label"] for r in rows], return_inverse=True)[1],
        np.array([r.get("group") or r["file"] for r in rows]),
    )


@torch.no_grad()
def knn_report(network: nn.Module, spec: EncoderSpec, sets: list[LabelledSet]) -> dict[str, float]:
    """Balanced accuracy of 20 nearest neighbours (cosine) outside the tile's own group, one a set; spread of the first set."""
    out: dict[str, float] = {}
    was_training = network.training
    network.eval()
    for s in sets:
        rows = torch.cat([readout.read(network, spec, part).embedding for part in s.tiles.split(64)])
        if not out:
            out = spread(rows)
        out[f"knn_{s.name}"] = knn_accuracy(rows.numpy(), s.labels, s.groups)
    network.train(was_training)
    return out


def knn_accuracy(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, k: int = 20) -> float:
    """x: [N, D]. Each row is told by its k nearest rows of other groups; the mean over classes of the share told rightly."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    cosine = unit @ unit.T
    cosine[groups[:, None] == groups] = -np.inf
    near = np.argsort(-cosine, axis=1)[:, :k]
    told = np.array([np.bincount(labels[row]).argmax() for row in near])
    return float(np.mean([(told[labels == c] == c).mean() for c in np.unique(labels)]))
