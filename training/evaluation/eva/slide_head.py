"""The head of eva for slides: gated attention over tiles, to the letter of eva 0.4.5.

Tiles are projected to 128 values, weighted by gated attention (128; Ilse et al. 2018,
arXiv:1802.04712), and classified by layers of 128 and 64. AdamW at 1e-3 with torch's own weight
decay, batches of 32 slides, at most 100 epochs, cross entropy. After every epoch balanced accuracy
on the validation part; the best epoch counts.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder.metrics import balanced_accuracy

_RATE, _BATCH, _EPOCHS = 1e-3, 32, 100
_WIDTH, _HIDDEN = 128, (128, 64)


@dataclass(frozen=True)
class Bags:
    """The slides of one part.

    Attributes:
        x: Embeddings float32 [tiles, D] of each.
        y: Class numbers [n].
    """

    x: Sequence[NDArray[np.float32]]
    y: NDArray[np.int64]


class Attention(nn.Module):
    """Logits of slides from their tiles."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, _WIDTH)
        self.tanh = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh())
        self.gate = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Sigmoid())
        self.weigh = nn.Linear(_WIDTH, 1)
        sizes = (_WIDTH, *_HIDDEN)
        layers = [
            layer
            for inputs, outputs in itertools.pairwise(sizes)
            for layer in (nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.classify = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Logits [N, classes] of tiles [N, T, D]; `there` [N, T] is False where padded."""
        x = self.project(x)
        weights = self.weigh(self.tanh(x) * self.gate(x)).masked_fill(~there[..., None], -torch.inf)
        logits: Tensor = self.classify((weights.softmax(1) * x).sum(1))
        return logits


def fit(
    parts: Mapping[str, Bags], classes: int, *, patience: int, seed: int, epochs: int = _EPOCHS
) -> dict[str, float]:
    """One run.

    Args:
        parts: "train", "val" (chooses the epoch) and others that are only reported.
        classes: Their number.
        patience: Epochs without a better figure after which the fit ends.
        seed: Of the first weights and of the order of slides.
        epochs: At most.

    Returns:
        Balanced accuracy of every part but train, at the epoch that is best on val.
    """
    torch.manual_seed(seed)
    train = parts["train"]
    head = Attention(train.x[0].shape[1], classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE)
    best, chosen, waited = -1.0, copy.deepcopy(head.state_dict()), 0
    for _ in range(epochs):
        order = torch.randperm(len(train.x)).tolist()
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            optimizer.zero_grad()
            logits = head(*padded([train.x[i] for i in rows]))
            nn.functional.cross_entropy(logits, torch.from_numpy(train.y[rows])).backward()
            optimizer.step()
        found = _balanced(head, parts["val"])
        if found > best:
            best, chosen, waited = found, copy.deepcopy(head.state_dict()), 0
        else:
            waited += 1
        if waited >= patience:
            break
    head.load_state_dict(chosen)
    return {name: _balanced(head, part) for name, part in parts.items() if name != "train"}


def padded(bags: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Tiles [N, T, D] of several slides, and where there are tiles [N, T]."""
    most = max(map(len, bags))
    x = torch.zeros(len(bags), most, bags[0].shape[1])
    there = torch.zeros(len(bags), most, dtype=torch.bool)
    for row, bag in enumerate(bags):
        x[row, : len(bag)] = torch.from_numpy(bag)
        there[row, : len(bag)] = True
    return x, there


def _balanced(head: Attention, part: Bags) -> float:
    predicted = []
    with torch.inference_mode():
        for start in range(0, len(part.x), _BATCH):
            predicted.append(head(*padded(part.x[start : start + _BATCH])).argmax(1))
    return balanced_accuracy(part.y, torch.cat(predicted).numpy())
