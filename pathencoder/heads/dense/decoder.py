"""The decoder of dense heads: a feature pyramid with a branch of the image at full resolution.

The maps of an encoder are coarse and lack outlines, so the image itself joins them at the end.
Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, is the top-down half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class DecoderShape:
    """What a decoder is built from.

    Attributes:
        channels: Of each map of the encoder's pyramid.
        strides: Of each map, in pixels, from fine to coarse; several may be equal.
        outputs: Channels of the result.
        extra: Channels that are given beside the three of the image.
        stride: Of the result, in pixels: 1 or 2.
        width: Channels of the pyramid from stride 4 on; half of them at stride 2.
        image_width: Channels at full resolution, where a channel costs most.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    outputs: int
    extra: int = 0
    stride: int = 1
    width: int = 64
    image_width: int = 8


class Decoder(nn.Module):
    """Maps of an encoder and the image to `outputs` channels.

    Args:
        shape: Its sizes.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        thin = shape.image_width
        widths = [shape.width if stride > 2 else shape.width // 2 for stride in shape.strides]
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, w, 1) for c, w in zip(shape.channels, widths, strict=True)
        )
        # each level hands its map down in the width of the next finer one
        self.smooth = nn.ModuleList(
            block(w, finer) for w, finer in zip(widths, [2 * thin, *widths], strict=False)
        )
        # what lies far off decides too: a lumen is part of its gland
        self.context = nn.Sequential(*(block(widths[-1], widths[-1], by) for by in (1, 2)))
        first = nn.Conv2d(3 + shape.extra, thin, 3, shape.stride, 1, bias=False)
        self.image = nn.Sequential(first, nn.BatchNorm2d(thin), nn.ReLU(inplace=True))
        self.detail = block(thin, thin)
        self.narrow = nn.Conv2d(2 * thin, thin, 1)
        self.join = block(2 * thin, thin)
        self.last = nn.Conv2d(thin, shape.outputs, 1)

    def forward(self, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        """The result at the stride of the decoder.

        Args:
            maps: The encoder's maps [N, C, h, w], in the order of the shape.
            image: [N, 3 + extra, H, W], normalised.

        Returns:
            Logits [N, outputs, H / stride, W / stride].
        """
        size = [n // self.shape.stride for n in image.shape[-2:]]
        top: Tensor | None = None
        for i in reversed(range(len(maps))):
            here = self.lateral[i](maps[i])
            if top is None:
                here = here + self.context(here)
            else:
                here = here + resized(top, here.shape[-2:])
            top = self.smooth[i](here)
        assert top is not None
        detail = self.detail(self.image(image))
        # narrowed before it is enlarged: the enlarged map is 4 to 16 times as large
        joined = torch.cat([resized(self.narrow(top), size), detail], 1)
        result: Tensor = self.last(self.join(joined))
        return result


def block(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """A convolution of 3 x 3, normalised, with a rectifier."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [N, C, h, w] at another height and width."""
    if list(x.shape[-2:]) == list(size):
        return x
    return interpolate(x, size=list(size), mode="bilinear", align_corners=False)
