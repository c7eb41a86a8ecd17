"""The decoder of eva for masks, to the letter of its online protocol (eva 0.4.5).

The map of the encoder's last block is enlarged twice, reduced to 64 channels, enlarged to the
image and joined with it; two convolutions of 32 channels and one of 1 x 1 follow. The encoder is
frozen. AdamW at 2e-3 with a polynomial rate (power .9, a step each epoch), batches of 64, at most
2,000 steps, Dice loss over the batch. Training crops have no fixed scale (8 to 100 % of an image);
validation images are reduced by their shorter side. After every epoch Dice on the validation part;
the best epoch counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder.encoder import Encoder
from pathencoder.wrapped import bare

SIDE = 224
_RATE, _BATCH, _STEPS, _POWER = 2e-3, 64, 2_000, 0.9
_AREA, _ASPECT, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
_SMOOTH = 1e-5


@dataclass(frozen=True)
class Masked:
    """An image with its mask.

    Attributes:
        image: uint8 [3, H, W].
        mask: uint8 [H, W], class numbers.
    """

    image: Tensor
    mask: Tensor


class Decoder(nn.Module):
    """eva's ConvDecoderWithImage."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Upsample(scale_factor=2), _block(width, 64))
        self.joined = nn.Sequential(_block(64 + 3, 32), _block(32, 32))
        self.classifier = nn.Conv2d(32, classes, kernel_size=1)

    def forward(self, dense: Tensor, image: Tensor) -> Tensor:
        """Logits [N, classes, H, W] of maps [N, C, h, w] and normalised images [N, 3, H, W]."""
        found = nn.functional.interpolate(self.maps(dense), image.shape[2:], mode="bilinear")
        logits: Tensor = self.classifier(self.joined(torch.cat([found, image], dim=1)))
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


@dataclass(frozen=True)
class Validation:
    """The validation part, encoded once for all runs.

    Attributes:
        batches: Maps, normalised images, and masks.
    """

    batches: Sequence[tuple[Tensor, Tensor, Tensor]]


def validation(encoder: Encoder, images: Sequence[Masked]) -> Validation:
    """Encode validation images: shorter side to 224 px, then the middle."""
    batches = []
    for start in range(0, len(images), _BATCH):
        pairs = [_middle(one) for one in images[start : start + _BATCH]]
        image, mask = _stacked(pairs, encoder)
        batches.append((_maps(encoder, image), image, mask))
    return Validation(batches)


def fit(
    encoder: Encoder,
    train: Sequence[Masked],
    val: Validation,
    classes: int,
    *,
    patience: int,
    seed: int,
    steps: int = _STEPS,
) -> float:
    """One run.

    Args:
        encoder: It stays frozen.
        train: The training part.
        val: Chooses the epoch, and is reported.
        classes: Their number with the background; a mask's pixels of that number are ignored.
        patience: Epochs without a better figure after which the fit ends.
        seed: Of the first weights, of the order of images, and of the crops.
        steps: At most.

    Returns:
        Dice of val at its best epoch.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = encoder.device
    decoder = Decoder(val.batches[0][0].shape[1], classes).to(device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=_RATE)
    rate = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=_STEPS, power=_POWER)
    best, waited, step = -1.0, 0, 0
    while step < steps and waited < patience:
        decoder.train()
        for rows in _orders(len(train), rng):
            image, mask = _stacked([_crop(train[i], rng) for i in rows], encoder)
            optimizer.zero_grad()
            dice_loss(decoder(_maps(encoder, image), image), mask).backward()
            optimizer.step()
            step += 1
            if step >= steps:
                break
        rate.step()
        found = _measured(decoder, val, classes)
        best, waited = (found, 0) if found > best else (best, waited + 1)
    return best


def _orders(count: int, rng: np.random.Generator) -> Iterator[list[int]]:
    order = rng.permutation(count).tolist()
    return (order[start : start + _BATCH] for start in range(0, count, _BATCH))


def _maps(encoder: Encoder, image: Tensor) -> Tensor:
    """The map [N, C, h, w] of the last block, before a last normalisation, as eva takes it."""
    network: Any = bare(encoder.network)
    with torch.no_grad():
        if hasattr(network, "forward_intermediates"):
            (maps,) = network.forward_intermediates(
                image, indices=1, norm=False, intermediates_only=True
            )
        else:
            maps = encoder(image).dense
    found: Tensor = maps.float()
    return found


def _measured(decoder: Decoder, val: Validation, classes: int) -> float:
    decoder.eval()
    with torch.inference_mode():
        found = [(decoder(maps, image).argmax(1), mask) for maps, image, mask in val.batches]
    pairs = [pair for predicted, mask in found for pair in zip(predicted, mask, strict=True)]
    return mean_dice(pairs, classes)


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice loss over the batch, mean over classes; MONAI's, with eva's ignored class.

    Args:
        logits: [N, C, H, W].
        mask: [N, H, W]; pixels of class C are ignored: equal logits, and the background, there.
    """
    known = mask != logits.shape[1]
    found = (logits * known[:, None]).softmax(1)
    truth = nn.functional.one_hot(mask * known, logits.shape[1]).movedim(-1, 1).float()
    over = (0, 2, 3)
    both = (found * truth).sum(over)
    return (1 - (2 * both + _SMOOTH) / (found.sum(over) + truth.sum(over) + _SMOOTH)).mean()


def mean_dice(pairs: Sequence[tuple[Tensor, Tensor]], classes: int) -> float:
    """Dice without background: mean over the classes of each image, then over images.

    Args:
        pairs: Predicted and true class numbers [H, W]. A class that an image lacks is left out of
            its mean; an image without any is left out.
        classes: Their number with the background.
    """
    of_images = []
    for predicted, true in pairs:
        found = []
        for number in range(1, classes):
            there = true == number
            if there.any():
                here = predicted == number
                found.append(float(2 * (here & there).sum() / (here.sum() + there.sum())))
        if found:
            of_images.append(float(np.mean(found)))
    return float(np.mean(of_images)) if of_images else 0.0


def _stacked(pairs: Sequence[tuple[Tensor, Tensor]], encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Normalised images float32 [N, 3, 224, 224] and masks int64 [N, 224, 224]."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.spec.mean, encoder.spec.std))
    image = (torch.stack([image for image, _ in pairs]) / 255 - mean) / std
    mask = torch.stack([mask for _, mask in pairs])
    return image.to(encoder.device), mask.to(encoder.device)


def _crop(one: Masked, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random part of an image at 224 px: RandomResizedCrop with its defaults."""
    rows, columns = one.mask.shape
    top, left, height, width = box(rows, columns, rng)
    window = slice(top, top + height), slice(left, left + width)
    return _resized(one.image[:, *window], one.mask[window], (SIDE, SIDE))


def box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop of an image, as torchvision draws it."""
    low, high = map(math.log, _ASPECT)
    for _ in range(_TRIES):
        area, aspect = height * width * rng.uniform(*_AREA), math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    ratio = min(max(width / height, _ASPECT[0]), _ASPECT[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def _middle(one: Masked) -> tuple[Tensor, Tensor]:
    """The image with its shorter side at 224 px, the middle cut."""
    height, width = one.mask.shape
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    image, mask = _resized(one.image, one.mask, size)
    top, left = (round((side - SIDE) / 2) for side in size)
    window = slice(top, top + SIDE), slice(left, left + SIDE)
    return image[:, *window], mask[window]


def _resized(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image (bilinear, without aliasing, whole grey values) and mask (nearest) at a size."""
    resize = nn.functional.interpolate
    finer = resize(image[None].float(), size, mode="bilinear", antialias=True)[0]
    nearest = resize(mask[None, None].float(), size, mode="nearest")[0, 0]
    return finer.round().clamp(0, 255), nearest.long()
