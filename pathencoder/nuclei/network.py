"""Two small networks for nuclei: `NucleiNetwork`, which is bundled, and that of a paper.

Paper: Boserup and Selvan, "Efficient Self-Supervision using Patch-based Contrastive Learning for
Histopathology Image Segmentation", NLDL 2023, doi 10.7557/18.6798 (10,758 parameters with its
featuriser).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size, and batch normalisation."""
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, bias=False
    )
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def parameters(*networks: nn.Module) -> int:
    """Number of trainable parameters of these networks together."""
    return sum(p.numel() for n in networks for p in n.parameters() if p.requires_grad)


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = convolution(width, width, dilation=dilation)
        self.second = convolution(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.elu(self.second(functional.elu(self.first(x))))


class ConfidenceNetwork(nn.Module):
    """The paper's network: RGB [N, 3, H, W] in 0..1 to confidence maps [N, C, H, W] in 0..1.

    One 3x3 block, six residual blocks with growing dilation (receptive field 167 px), a 1x1
    convolution and a sigmoid, all at full resolution. 7,372 parameters with 4 channels.
    """

    def __init__(
        self,
        channels: int = 4,
        *,
        width: int = 8,
        dilations: tuple[int, ...] = (1, 2, 3, 5, 10, 20),
    ) -> None:
        super().__init__()
        self.stem = convolution(3, width)
        self.blocks = nn.Sequential(*(_Residual(width, d) for d in dilations))
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Confidence maps of RGB in 0..1."""
        return torch.sigmoid(self.head(self.blocks(functional.elu(self.stem(0.95 * x + 0.05)))))


class Featuriser(nn.Module):
    """The paper's patch features: patches [N, C, 50, 50] to [N, 32].

    3,386 parameters with one (grey) input channel. Only the cosine similarity uses it; the paper's
    10.8k includes it in every case.
    """

    patch = 50

    def __init__(self, inputs: int = 1, features: int = 32) -> None:
        super().__init__()
        # 50 -> 48 -> 22 -> 9 pixels
        blocks = (_valid(inputs, 8, bias=True), _valid(8, 8, step=2), _valid(8, 1, step=2))
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(81, features))

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches."""
        out: Tensor = self.layers(patches)
        return out


def _valid(inputs: int, outputs: int, *, step: int = 1, bias: bool = False) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride=step, dilation=step, bias=bias)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ELU())


class NucleiNetwork(nn.Module):
    """Stain maps [N, 3, h, w] at 0.5 um per pixel (maps.py) to logits of nucleus and depth.

    Depth is 0 at the outline of a nucleus and 1 in its centre. One level at half resolution between
    a stem and a fusing convolution; 10,218 parameters.
    """

    def __init__(
        self, *, width: int = 12, inner: int = 16, dilations: tuple[int, ...] = (1, 2, 1)
    ) -> None:
        super().__init__()
        self.width, self.inner, self.dilations = width, inner, dilations
        self.stem = convolution(3, width)
        self.down = convolution(width, inner, stride=2)
        self.blocks = nn.ModuleList(convolution(inner, inner, dilation=d) for d in dilations)
        self.up = nn.Conv2d(inner, width, 1)
        self.fuse = convolution(width, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits [N, 2, h, w] of stain maps of any size."""
        h, w = maps.shape[-2:]
        even = functional.pad(maps, (0, w % 2, 0, h % 2), mode="replicate")
        fine = functional.elu(self.stem(even))
        coarse = functional.elu(self.down(fine))
        for block in self.blocks:
            coarse = coarse + functional.elu(block(coarse))
        back = functional.interpolate(
            self.up(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        out: Tensor = self.head(functional.elu(self.fuse(fine + back)))
        return out[..., :h, :w]
