"""The head of eva for tiles: one linear layer on frozen embeddings, to the letter of eva 0.4.5.

AdamW at 3e-4 with torch's own weight decay, batches of 256, at most 12,500 steps, cross entropy
(two classes: one logit and binary cross entropy). After every epoch balanced accuracy on the
validation part; the best epoch counts, and a fit ends after `patience` looks without a better one.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder.metrics import balanced_accuracy

_RATE, _BATCH, _STEPS = 3e-4, 256, 12_500


@dataclass(frozen=True)
class Part:
    """Embeddings of one part.

    Attributes:
        x: float32 [n, D].
        y: Class numbers [n].
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def fit(
    parts: Mapping[str, Part],
    classes: int,
    *,
    patience: int,
    seed: int,
    steps: int = _STEPS,
    every: int = 1,
    least: float = 0.0,
) -> dict[str, float]:
    """One run.

    Args:
        parts: "train", "val" (chooses the epoch) and others that are only reported.
        classes: Their number.
        patience: Looks at val without a better figure after which the fit ends.
        seed: Of the first weights and of the order of images.
        steps: At most.
        every: Epochs between looks at val.
        least: By how much a figure must be better to count for `patience`.

    Returns:
        Balanced accuracy of every part but train, at the epoch that is best on val.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = nn.Linear(parts["train"].x.shape[1], 1 if classes == 2 else classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE)
    x, y = torch.from_numpy(parts["train"].x), torch.from_numpy(parts["train"].y)
    best, chosen, step = -1.0, copy.deepcopy(head.state_dict()), 0
    mark, waited = -1.0, 0
    for epoch in itertools.count(1):
        if step >= steps or waited >= patience:
            break
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), _BATCH):
            rows = order[start : start + _BATCH]
            optimizer.zero_grad()
            _loss(head(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
            if step >= steps:
                break
        if epoch % every:
            continue
        found = _balanced(head, parts["val"])
        if found > best:
            best, chosen = found, copy.deepcopy(head.state_dict())
        mark, waited = (found, 0) if found - least > mark else (mark, waited + 1)
    head.load_state_dict(chosen)
    return {name: _balanced(head, part) for name, part in parts.items() if name != "train"}


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.float())
    return nn.functional.cross_entropy(logits, y)


def _balanced(head: nn.Linear, part: Part) -> float:
    with torch.inference_mode():
        logits = head(torch.from_numpy(part.x))
    predicted = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    return balanced_accuracy(part.y, predicted.numpy())
