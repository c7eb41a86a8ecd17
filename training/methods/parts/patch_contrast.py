"""Patch contrast: entropy-guided sampling, similarities of patches, the loss, a stopping rule.

Boserup and Selvan, NLDL 2023, doi 10.7557/18.6798. Where the paper's text and its published code
differ, the code is followed. Only the text has the stopping rule ("convergence is assumed when the
information separation between the positive patches is small, and the positive-negative pairs is
large"): see `Separation` and `Convergence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pathencoder.errors import ConfigError
from pathencoder.nuclei.network import Featuriser
from training.methods.parts.precision import in_fp32

# patches [A, ...] and [B, ...] -> [A, B], larger is more similar
Similarity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampling:
    """How patches are drawn. The defaults are the paper's.

    Attributes:
        patch: Side of a patch, px.
        stride: Of the grid of patches, px.
        per_image: Patches drawn for each image and channel.
        anchors: Positives drawn as anchors for each channel.
    """

    patch: int = 50
    stride: int = 20
    per_image: int = 10
    anchors: int = 10


@dataclass(frozen=True)
class Patches:
    """The sampled patches of one channel, of all images of the batch.

    Attributes:
        positive: Float [K, 3, P, P], multiplied by their confidence.
        negative: The same.
    """

    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Separation:
    """Mean dissimilarity of pairs of patches, over channels.

    Attributes:
        within: Of pairs of positives.
        between: Of pairs of a positive and a negative.
    """

    within: float
    between: float

    @property
    def ratio(self) -> float:
        """Small when positives are similar to each other and not to negatives."""
        return self.within / max(self.between, 1e-9)


@in_fp32
def sample(
    images: Tensor, confidence: Tensor, sampling: Sampling, generator: torch.Generator
) -> list[Patches]:
    """Sample patches of every channel.

    Windows of a regular grid are drawn with replacement with weight 1 - mean entropy (at least
    .001), and each is a positive with the probability of its mean confidence. Gradients flow
    through the confidence that weighs the patches, not through the choice.

    Args:
        images: Float [N, 3, H, W] in 0..1.
        confidence: Float [N, C, H, W] from the network.
        sampling: Sizes and numbers.
        generator: The source of the choice.

    Returns:
        The patches of each of the C channels.

    Raises:
        ConfigError: The images are smaller than a patch.
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
    """Binary entropy of every pixel in bits, 0..1; confidence is fp32 of any shape."""
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


@in_fp32
def contrast_loss(
    patches: list[Patches],
    similarity: Similarity,
    images: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> Tensor | None:
    """The loss, summed over channels.

    For each anchor p, drawn with replacement from the channel's positives P, and with its negatives
    as N: sum over q in P of -s(p, q) + log sum over n in N of exp s(p, n), divided by 100 times the
    number of images. A second term is the same with the positives of all other channels as N.
    There is no temperature.

    Args:
        patches: Of each channel.
        similarity: s.
        images: Number of images in the batch.
        sampling: Its number of anchors is used.
        generator: The source of the anchors.

    Returns:
        A scalar; None where a channel lacks positives or negatives (the paper skips such a batch).
    """
    if any(not len(p.positive) or not len(p.negative) for p in patches):
        return None
    total = patches[0].positive.new_zeros(())
    for c, own in enumerate(patches):
        pick = torch.randint(len(own.positive), (sampling.anchors,), generator=generator)
        anchors = own.positive[pick]
        similar = similarity(anchors, own.positive)
        total = total + _contrast(similar, similarity(anchors, own.negative))
        others = [p.positive for i, p in enumerate(patches) if i != c]
        if others:
            total = total + _contrast(similar, similarity(anchors, torch.cat(others)))
    return total / (100 * images)


def _contrast(positive: Tensor, negative: Tensor) -> Tensor:
    return (negative.logsumexp(1, keepdim=True) - positive).sum()


@torch.no_grad()
@in_fp32
def separation(
    patches: list[Patches], similarity: Similarity, *, most: int = 32
) -> Separation | None:
    """Dissimilarity of the sampled patches, over channels that have positives and negatives.

    Args:
        patches: Of each channel.
        similarity: Their similarity.
        most: Patches of each kind that are compared.

    Returns:
        The means; None where no channel has both kinds.
    """
    full = [
        _dissimilarity(p.positive[:most], p.negative[:most], similarity)
        for p in patches
        if len(p.positive) > 1 and len(p.negative)
    ]
    if not full:
        return None
    return Separation(*(sum(part) / len(full) for part in zip(*full, strict=True)))


def _dissimilarity(
    positive: Tensor, negative: Tensor, similarity: Similarity
) -> tuple[float, float]:
    """Means for positive pairs and for mixed pairs: s(p, p) - s(p, q)."""
    similar = similarity(positive, positive)
    itself = similar.diagonal()[:, None]
    pairs = len(positive) * (len(positive) - 1)
    within = (itself - similar).sum() / pairs
    between = (itself - similarity(positive, negative)).mean()
    return within.item(), between.item()


class Convergence(nn.Module):
    """The stopping rule: positives are similar, negatives are not, and neither improves any more.

    That is, the smoothed ratio within / between is below `ratio` and has not fallen by the relative
    `gain` over the last `patience` steps. Its last values are a buffer: checkpoints hold them, so
    that a resumed run stops where an uninterrupted one does.
    """

    recent: Tensor  # float64 [patience + 1], oldest first; NaN: not that many steps yet

    def __init__(
        self, ratio: float = 0.5, gain: float = 0.02, patience: int = 20, smoothing: float = 0.9
    ) -> None:
        super().__init__()
        self.ratio, self.gain, self.smoothing = ratio, gain, smoothing
        empty = torch.full((patience + 1,), torch.nan, dtype=torch.float64)
        self.register_buffer("recent", empty)

    def update(self, found: Separation | None) -> bool:
        """Add one step's separation; True when training may stop."""
        oldest, *others = self.recent.tolist()
        if found is not None:
            last = found.ratio if math.isnan(others[-1]) else others[-1]
            others.append(self.smoothing * last + (1 - self.smoothing) * found.ratio)
            self.recent.copy_(torch.tensor(others, dtype=torch.float64))
            oldest = others[0]
        newest = others[-1]
        if math.isnan(oldest):
            return False
        return bool(newest < self.ratio and newest > (1 - self.gain) * oldest)


def choose_channel(confidence: NDArray[np.float32], stain: NDArray[np.float32]) -> tuple[int, bool]:
    """Choose the nuclear channel without labels, by its correlation with a nuclear stain.

    Args:
        confidence: Maps [N, C, H, W].
        stain: The stain's optical density [N, H, W].

    Returns:
        The channel with the largest absolute correlation, and whether that is negative, so that
        the map must be inverted.
    """
    centred = [v - v.mean() for v in (*confidence.swapaxes(0, 1), stain)]
    # a constant channel correlates with nothing
    lengths = [max(float(np.linalg.norm(v)), 1e-6) for v in centred]
    correlation = np.array(
        [
            float((v * centred[-1]).sum()) / n / lengths[-1]
            for v, n in zip(centred, lengths, strict=True)
        ][:-1]
    )
    best = int(np.abs(correlation).argmax())
    return best, bool(correlation[best] < 0)


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
    """Negative Kullback-Leibler divergence of every pair.

    Each patch in grey is taken as a distribution over its pixels.
    """
    x, y = (_distribution(p) for p in (a, b))
    return x @ y.log().T - (x * x.log()).sum(1, keepdim=True)


def _distribution(patches: Tensor) -> Tensor:
    grey = patches.mean(1).flatten(1).clamp_min(1e-6)
    return grey / grey.sum(1, keepdim=True)


def mutual_information(a: Tensor, b: Tensor, *, bins: int = 25) -> Tensor:
    """Mutual information in nats of every pair of patches in grey.

    The bins are Gaussian, so that it has a gradient.
    """
    x, y = (_binned(p, bins) for p in (a, b))
    joint = torch.einsum("apk,bpl->abkl", x, y) / x.shape[1]
    product = x.mean(1)[:, None, :, None] * y.mean(1)[None, :, None, :]
    return (joint * (joint.clamp_min(1e-12) / product.clamp_min(1e-12)).log()).sum((2, 3))


def _binned(patches: Tensor, bins: int) -> Tensor:
    grey = patches.mean(1).flatten(1)[..., None]
    centres = torch.linspace(0, 1, bins, dtype=grey.dtype, device=grey.device)
    weight = torch.exp(-0.5 * ((grey - centres) * bins) ** 2)
    return weight / weight.sum(-1, keepdim=True)


def cosine_of(featuriser: Featuriser) -> Similarity:
    """The similarity that is the cosine of the featuriser's outputs for the patches in grey."""

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
    """A similarity by its name; "cosine" runs the featuriser.

    Raises:
        ConfigError: There is no such similarity.
    """
    if name == "cosine":
        return cosine_of(featuriser)
    if name not in SIMILARITIES:
        raise ConfigError(f"similarity {name!r}: one of {', '.join((*SIMILARITIES, 'cosine'))}")
    return SIMILARITIES[name]
