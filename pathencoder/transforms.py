"""Preprocess uint8 tiles as in training: resize, then normalise.

Training and inference use the same code. Resizing is Pillow's (antialiased bilinear or bicubic), so
that the values equal torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` on PIL
images, which the authors of public encoders used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError
from pathencoder.images import ImageSource, open_image
from pathencoder.mpp import check_mpp
from pathencoder.spec import EncoderSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_WHITE = 255
# pixels up to which the whole image is resized, as torchvision does, and then cropped
_WHOLE = 25_000_000


@dataclass(frozen=True, repr=False)
class Transform:
    """The preprocessing of one encoder: any one image to float32 [3, S, S]. Picklable."""

    spec: EncoderSpec

    def __repr__(self) -> str:
        s = self.spec
        scale = f" at {s.mpp:g} um/px" if s.mpp else ""
        resize = s.resize if s.resize_size is None else f"{s.resize} {s.resize_size}"
        return (
            f"Transform({s.input_size} px{scale}, {s.interpolation} {resize}, mean={s.mean},"
            f" std={s.std})"
        )

    def __call__(self, image: ImageSource, mpp: float | None = None) -> Tensor:
        """Preprocess one image.

        Args:
            image: In any form that `open_image` accepts.
            mpp: As in `resize`.

        Returns:
            Normalised float32 [3, S, S].
        """
        return self.normalise(np.stack([self.resize(open_image(image), mpp)]))[0]

    def resize(self, image: Pixels, mpp: float | None = None) -> Pixels:
        """Resize one image to the encoder's input size.

        Args:
            image: uint8 [H, W, 3].
            mpp: Micrometres per pixel of `image`. Given: the image is resampled to the encoder's
                mpp (a side becomes round(side x mpp / encoder's mpp) pixels), then cropped around
                its centre or padded with white, never stretched. None: resized as the encoder's
                authors do, whole to a square ("squash") or by its shortest side and then cropped
                ("shortest").

        Returns:
            uint8 [S, S, 3].

        Raises:
            ConfigError: `mpp` is not a number from 0.01 to 100, or the encoder has no scale.
        """
        size = self.spec.input_size
        height, width = image.shape[:2]
        if mpp is not None:
            factor = check_mpp(mpp) / self._target_mpp(mpp)
            return self._fit(image, max(1, round(height * factor)), max(1, round(width * factor)))
        if self.spec.resize == "squash":
            return self._resample(image, size, size)
        short, side = min(height, width), self.spec.resize_size or size
        return self._fit(image, int(side * height / short), int(side * width / short))

    def normalise(self, batch: Pixels | Tensor) -> Tensor:
        """Normalise a batch: (x / 255 - mean) / std.

        Args:
            batch: uint8 [N, H, W, 3].

        Returns:
            float32 [N, 3, H, W] on the device of the batch, channels last in memory.
        """
        pixels = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.spec.mean, self.spec.std))
        return x.div_(255).sub_(mean).div_(std)

    def _target_mpp(self, mpp: float) -> float:
        """The encoder's scale; for one trained over a range of scales, the nearest of the range."""
        if self.spec.mpp is not None:
            return self.spec.mpp
        if self.spec.mpp_range is None:
            raise ConfigError(
                f"{self.spec.name} does not say at what scale it was trained: leave mpp out, and"
                " the tile is resized whole"
            )
        low, high = self.spec.mpp_range
        return min(max(mpp, low), high)

    def _fit(self, image: Pixels, height: int, width: int) -> Pixels:
        """The central S x S of `image` resized to height x width, padded with white if smaller."""
        size = self.spec.input_size
        span = _whole if height * width <= _WHOLE else _window
        y, x = span(image.shape[0], height, size), span(image.shape[1], width, size)
        part = self._resample(image, y.pixels, x.pixels, box=(x.start, y.start, x.stop, y.stop))
        return _pad(part[y.skip : y.skip + size, x.skip : x.skip + size], size)

    def _resample(
        self,
        image: Pixels,
        height: int,
        width: int,
        box: tuple[float, float, float, float] | None = None,
    ) -> Pixels:
        whole = box is None or box == (0, 0, image.shape[1], image.shape[0])
        if whole and image.shape[:2] == (height, width):
            return image
        return np.asarray(
            Image.fromarray(image).resize(
                (width, height), _FILTERS[self.spec.interpolation], box=box
            )
        )


@dataclass(frozen=True)
class _Span:
    """One axis of a resize: source start..stop becomes `pixels` pixels, `skip` of them cropped."""

    start: float
    stop: float
    pixels: int
    skip: int


def _whole(source: int, target: int, size: int) -> _Span:
    return _Span(0, source, target, max(_crop_offset(target, size), 0))


def _window(source: int, target: int, size: int) -> _Span:
    """Only the central `size` of `target` pixels.

    Pillow's filter reads beyond the box, so the values equal those of the whole resize.
    """
    first = max(_crop_offset(target, size), 0)
    last = min(first + size, target)
    return _Span(first * source / target, last * source / target, last - first, 0)


def _crop_offset(length: int, size: int) -> int:
    """Start of a centre crop, with torchvision's rounding (half to even)."""
    return round((length - size) / 2)


def _pad(image: Pixels, size: int) -> Pixels:
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    padded = np.full((size, size, 3), _WHITE, dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded
