"""The paper's patch contrast.

entropy-guided sampling of patches, their similarities, the loss, and a stopping rule.

Boserup and Selvan, NLDL 2023, doi 10.7557/18.6798. Where the paper's text and its published code
differ the code was followed, but for the stopping rule ("convergence is assumed when the
information separation between the positive patches is small, and the positive-negative pairs is
large"), which only the text has: see `Separation` and `Convergence`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pathencoder.errors import ConfigError
from pathencoder.nuclei.network import Featuriser

# patches [A, ...] and [B, ...] -> [A, B], larger is more alike
Similarity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampling:
    """Where patches come from. Sizes are pixels. The defaults are the paper's."""

    patch: int = 50
    stride: int = 20
    per_image: int = 10  # patches drawn for each image and channel
    anchors: int = 10  # positives drawn as anchors for each channel


@dataclass(frozen=True)
class Patches:
    """The sampled patches of one channel, pooled over the batch: [K, 3, P, P] each, times their confidence."""

    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Separation:
    """Mean dissimilarity of positive-positive pairs (`within`) and of positive-negative pairs (`between`), over channels."""

    within: float
    between: float

    @property
    def ratio(self) -> float:
        """Small when positives are alike and negatives are not."""
        return self.within / max(self.between, 1e-9)


def sample(
    images: Tensor, confidence: Tensor, sampling: Sampling, generator: torch.Generator
) -> list[Patches]:
    """Patches of every channel.

    `images` float [N, 3, H, W] in 0..1, `confidence` [N, C, H, W] from the network.

    Windows of a regular grid are drawn with replacement with weight 1 - mean entropy (at least
    .001), and each is a positive with the probability of its mean confidence. Gradients flow
    through the confidence that weighs the patches, not through the choice.
    """
    size, stride = sampling.patch, sampling.stride
    if min(images.shape[-2:]) < size:
        raise ConfigError(
            f"patches of {size} px do not fit images of {tuple(images.shape[-2:])} px: use larger"
            " crops or a smaller patch"
        )
    with torch.no_grad():
        mean = functional.avg_pool2d(confidence, size, stride)
        decided = (1 - functional.avg_pool2d(entropy(confidence), size, stride)).clamp_min(1e-3)
    picks = [
        _draw(mean[:, c], decided[:, c], sampling.per_image, generator)
        for c in range(confidence.shape[1])
    ]
    scaled = 0.95 * images + 0.05
    return [
        _cut(scaled * confidence[:, c : c + 1], *pick, sampling) for c, pick in enumerate(picks)
    ]


def entropy(confidence: Tensor) -> Tensor:
    """Binary entropy in bits of every pixel, 0..1."""
    p = confidence.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def _draw(
    mean: Tensor, weight: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Window indices [N, count] into the flattened grid, and which of them are positives."""
    chosen = torch.multinomial(weight.flatten(1), count, replacement=True, generator=generator)
    return chosen, torch.bernoulli(mean.flatten(1).gather(1, chosen), generator=generator) > 0


def _cut(attended: Tensor, chosen: Tensor, positive: Tensor, sampling: Sampling) -> Patches:
    windows = attended.unfold(2, sampling.patch, sampling.stride).unfold(
        3, sampling.patch, sampling.stride
    )
    image = torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
    rows, columns = chosen.flatten() // windows.shape[3], chosen.flatten() % windows.shape[3]
    patches = windows[image, :, rows, columns]
    return Patches(patches[positive.flatten()], patches[~positive.flatten()])


def contrast_loss(
    patches: list[Patches],
    similarity: Similarity,
    images: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> Tensor | None:
    """The loss, summed over channels.

    None where a channel lacks positives or negatives (the paper skips such a batch).

    For each anchor p (drawn with replacement from the positives P), with the channel's negatives as
    the others N: sum over q in P of -s(p, q) + log sum over n in N of exp s(p, n), divided by 100
    times the number of images. The second term is the same with the positives of all other channels
    as N. There is no temperature.
    """
    if any(not len(p.positive) or not len(p.negative) for p in patches):
        return None
    total = patches[0].positive.new_zeros(())
    for c, own in enumerate(patches):
        pick = torch.randint(len(own.positive), (sampling.anchors,), generator=generator)
        anchors = own.positive[pick]
        alike = similarity(anchors, own.positive)
        total = total + _pull(alike, similarity(anchors, own.negative))
        others = [p.positive for i, p in enumerate(patches) if i != c]
        if others:
            total = total + _pull(alike, similarity(anchors, torch.cat(others)))
    return total / (100 * images)


def _pull(alike: Tensor, unlike: Tensor) -> Tensor:
    return (unlike.logsumexp(1, keepdim=True) - alike).sum()


@torch.no_grad()
def separation(
    patches: list[Patches], similarity: Similarity, *, most: int = 32
) -> Separation | None:
    """How far apart the sampled patches are, over channels that have both kinds.

    None where no channel has.
    """
    full = [
        _apart(p.positive[:most], p.negative[:most], similarity)
        for p in patches
        if len(p.positive) > 1 and len(p.negative)
    ]
    if not full:
        return None
    return Separation(*(sum(part) / len(full) for part in zip(*full, strict=True)))


def _apart(positive: Tensor, negative: Tensor, similarity: Similarity) -> tuple[float, float]:
    """Mean dissimilarity of positive pairs and of mixed pairs.

    What a patch's similarity to itself exceeds that to the other by.
    """
    alike = similarity(positive, positive)
    itself = alike.diagonal()[:, None]
    pairs = len(positive) * (len(positive) - 1)
    return ((itself - alike).sum() / pairs).item(), (
        itself - similarity(positive, negative)
    ).mean().item()


@dataclass
class Convergence:
    """Stops when positives have come together and negatives apart.

    The smoothed ratio within / between is below `ratio`, and has not fallen by `gain` (relative)
    within the last `patience` steps.
    """

    ratio: float = 0.5
    gain: float = 0.02
    patience: int = 20
    smoothing: float = 0.9
    history: list[float] = field(default_factory=list)

    def update(self, found: Separation | None) -> bool:
        """Take one step's separation; True when training may stop."""
        if found is not None:
            last = self.history[-1] if self.history else found.ratio
            self.history.append(self.smoothing * last + (1 - self.smoothing) * found.ratio)
        if len(self.history) <= self.patience:
            return False
        return (
            self.history[-1] < self.ratio
            and self.history[-1] > (1 - self.gain) * self.history[-1 - self.patience]
        )


def choose_channel(confidence: NDArray[np.float32], stain: NDArray[np.float32]) -> tuple[int, bool]:
    """The nuclear channel without labels.

    Maps [N, C, H, W] against a nuclear stain's density [N, H, W].

    Returns the channel whose correlation with the stain is largest in size, and whether it has to
    be turned over.
    """
    centred = [v - v.mean() for v in (*confidence.swapaxes(0, 1), stain)]
    # a dead channel correlates with nothing
    lengths = [max(float(np.linalg.norm(v)), 1e-6) for v in centred]
    together = np.array(
        [
            float((v * centred[-1]).sum()) / n / lengths[-1]
            for v, n in zip(centred, lengths, strict=True)
        ][:-1]
    )
    best = int(np.abs(together).argmax())
    return best, bool(together[best] < 0)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Negative mean squared error of every pair (the paper's first choice)."""
    x, y = a.flatten(1), b.flatten(1)
    return -(
        x.square().mean(1)[:, None] + y.square().mean(1)[None] - 2 * x @ y.T / x.shape[1]
    ).clamp_min(0)


def cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    """Negative mean binary cross-entropy in bits of every pair, values taken as probabilities."""
    x, y = a.flatten(1), b.flatten(1).clamp(1e-6, 1 - 1e-6)
    return (x @ y.log2().T + (1 - x) @ (1 - y).log2().T) / x.shape[1]


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """Negative Kullback-Leibler divergence of every pair, each grey patch taken as a distribution over its pixels."""
    x, y = (_distribution(p) for p in (a, b))
    return x @ y.log().T - (x * x.log()).sum(1, keepdim=True)


def _distribution(patches: Tensor) -> Tensor:
    grey = patches.mean(1).flatten(1).clamp_min(1e-6)
    return grey / grey.sum(1, keepdim=True)


def mutual_information(a: Tensor, b: Tensor, *, bins: int = 25) -> Tensor:
    """Mutual information in nats of every pair of grey patches, with Gaussian bins so that it has a gradient."""
    x, y = (_binned(p, bins) for p in (a, b))
    joint = torch.einsum("apk,bpl->abkl", x, y) / x.shape[1]
    apart = x.mean(1)[:, None, :, None] * y.mean(1)[None, :, None, :]
    return (joint * (joint.clamp_min(1e-12) / apart.clamp_min(1e-12)).log()).sum((2, 3))


def _binned(patches: Tensor, bins: int) -> Tensor:
    grey = patches.mean(1).flatten(1)[..., None]
    centres = torch.linspace(0, 1, bins, dtype=grey.dtype, device=grey.device)
    weight = torch.exp(-0.5 * ((grey - centres) * bins) ** 2)
    return weight / weight.sum(-1, keepdim=True)


def cosine_of(featuriser: Featuriser) -> Similarity:
    """Cosine of the featuriser's outputs for the patches in grey."""

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        both = functional.normalize(featuriser(torch.cat([a, b]).mean(1, keepdim=True)), dim=1)
        return both[: len(a)] @ both[len(a) :].T

    return cosine


SIMILARITIES: dict[str, Similarity] = {
    "mse": squared_error,
    "cross_entropy": cross_entropy,
    "divergence": divergence,
    "mutual_information": mutual_information,
}


def similarity_named(name: str, featuriser: Featuriser) -> Similarity:
    """A similarity by its name: mse, cross_entropy, divergence, mutual_information, or cosine (which runs the featuriser)."""
    if name == "cosine":
        return cosine_of(featuriser)
    if name not in SIMILARITIES:
        raise ConfigError(f"similarity {name!r}: one of {', '.join((*SIMILARITIES, 'cosine'))}")
    return SIMILARITIES[name]
