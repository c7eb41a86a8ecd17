"""An encoder and a decoder as one network, and its result for images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder.encoder import Encoder
from pathencoder.folding import for_inference, for_training
from pathencoder.heads.dense.decoder import Decoder, DecoderShape
from pathencoder.heads.dense.smp import OURS, SmpDecoder
from pathencoder.network import has_tokens
from pathencoder.outputs import pyramid
from pathencoder.views import turned_back

Floats = NDArray[np.float32]
_SIDE = 512  # px of a window when an image is read
_MARGIN = 8  # a window's border of this share of its side is not used
_EXTRA_SCALE = 3.0


class DenseNetwork(nn.Module):
    """The encoder's pyramid and a decoder on it.

    Args:
        encoder: The encoder; training it along changes it.
        outputs: Channels of the result.
        extra: Channels given beside the image.
        stride: Of the result in pixels.
        width: Channels of the decoder's pyramid.
        image_width: Channels of its image branch.
        decoder: One of `smp.DECODERS`.

    Raises:
        ConfigError: The decoder does not fit the encoder.
        MissingExtra: It is one of a package that is not installed.
    """

    def __init__(
        self,
        encoder: Encoder,
        outputs: int,
        *,
        extra: int = 0,
        stride: int = 1,
        width: int = 64,
        image_width: int = 8,
        decoder: str = OURS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        side = encoder.spec.input_size
        with torch.no_grad():
            blank = torch.zeros(1, 3, side, side, device=encoder.device, dtype=encoder.dtype)
            maps, strides = encoder.pyramid(blank)
        order = np.argsort(strides, kind="stable").tolist()
        self._order = order
        # a transformer's positions are of one size of window
        self.fixed_side = side if has_tokens(encoder.network) else None
        self.unit = math.lcm(2 * _MARGIN, max(strides))
        shape = DecoderShape(
            tuple(maps[i].shape[1] for i in order),
            tuple(strides[i] for i in order),
            outputs,
            extra,
            stride,
            width,
            image_width,
        )
        made = Decoder(shape) if decoder == OURS else SmpDecoder(decoder, shape)
        self.decoder: Decoder | SmpDecoder = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.decoder.to(encoder.device)

    def forward(self, image: Tensor, extra: Tensor | None = None, *, frozen: bool = True) -> Tensor:
        """Logits of a batch.

        Args:
            image: Normalised [N, 3, H, W]; H and W are multiples of `unit`.
            extra: [N, E, H, W].
            frozen: Compute no gradient of the encoder.

        Returns:
            [N, outputs, H / stride, W / stride].
        """
        own = self.encoder.network
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            reads = torch.is_inference_mode_enabled()
            network = for_inference(own, "fp32") if reads else for_training(own)
            found, _ = pyramid(network, self.encoder.spec, image)
        maps = [found[i].float() for i in self._order]
        whole = image if extra is None else torch.cat([image, extra / _EXTRA_SCALE], 1)
        result: Tensor = self.decoder(maps, whole)
        return result

    def normalised(self, image: Tensor) -> Tensor:
        """Float [N, 3, H, W], 0..255, as the encoder takes it."""
        spec = self.encoder.spec
        mean, std = (image.new_tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        x = (image / 255 - mean) / std
        return x.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def read(
        self,
        planes: Tensor,
        *,
        views: int = 1,
        activation: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> Floats:
        """Probabilities of a whole image; windows overlap, and only their middle is used.

        Args:
            planes: float [3 + E, H, W], the image in 0..255 and the extra channels.
            views: Views that are averaged: 1, 4 (quarter turns) or 8 (and mirrored).
            activation: Logits [N, outputs, h, w] to probabilities.

        Returns:
            float32 [outputs, H / stride, W / stride], rounded up.
        """
        self.eval()
        height, width = planes.shape[-2:]
        stride = self.decoder.shape.stride
        side = self.fixed_side or min(_SIDE, self._fitting(max(height, width) * 4 / 3))
        margin = side // _MARGIN
        step = side - 2 * margin
        down, right = (math.ceil(n / step) * step for n in (height, width))
        padded = _mirrored(
            planes, (margin, right - width + margin), (margin, down - height + margin)
        )
        result = np.empty((self.decoder.shape.outputs, down // stride, right // stride), np.float32)
        inner = slice(margin // stride, (margin + step) // stride)
        for y in range(0, down, step):
            for x in range(0, right, step):
                part = padded[None, :, y : y + side, x : x + side]
                found = self._averaged(part, views, activation)[0, :, inner, inner]
                at = np.s_[y // stride : (y + step) // stride, x // stride : (x + step) // stride]
                result[(slice(None), *at)] = found.cpu().numpy()
        return result[:, : math.ceil(height / stride), : math.ceil(width / stride)]

    def _averaged(self, part: Tensor, views: int, activation: Callable[[Tensor], Tensor]) -> Tensor:
        total: Tensor | None = None
        for number in range(views):
            view = _turned(part.to(self.encoder.device), number)
            extra = view[:, 3:] if view.shape[1] > 3 else None
            logits = self(self.normalised(view[:, :3]), extra)
            found = turned_back(activation(logits), number)
            total = found if total is None else total + found
        assert total is not None
        return total / views

    def _fitting(self, size: float) -> int:
        """The smallest side from `size` on that the strides divide."""
        return math.ceil(size / self.unit) * self.unit


def _turned(x: Tensor, view: int) -> Tensor:
    """View 0..7 of [..., H, W]: a quarter turn, from 4 on mirrored before."""
    return torch.rot90(x.flip(-1) if view >= 4 else x, view % 4, (-2, -1))


def _mirrored(planes: Tensor, across: tuple[int, int], down: tuple[int, int]) -> Tensor:
    """Padded by mirroring, also where the border is wider than the image."""
    return torch.from_numpy(np.pad(planes.numpy(), ((0, 0), down, across), mode="symmetric"))
