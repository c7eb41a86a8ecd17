"""A dense task without labels: how much of each stain lies at every position of a crop.

The targets are amounts of hematoxylin, eosin and DAB by colour deconvolution with fixed vectors
(Ruifrok and Johnston 2001), of the crop before its colours change. A 1 x 1 convolution predicts
them from a map of the backbone, at the stride of the map, so that maps keep where nuclei and
fibres lie whatever the colours are. The convolutions are not exported.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from pathencoder.stain import HED, unmixing
from training import distributed
from training.bounds import Name, Section
from training.methods.parts.feature_maps import feature_maps
from training.methods.parts.precision import in_fp32

# The least variance of a stain, as a share of the mean of all: one that hardly varies in a batch is
# noise of the deconvolution, and gets no larger weight than this gives it.
_LEAST_SHARE = 0.05
_EPSILON = 1e-6  # against a batch without stain


def _once(stages: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(stages)) < len(stages):
        raise ValueError("name each stage once")
    return stages


class StainMapSettings(Section):
    """The task of stain densities.

    Attributes:
        weight: Of its loss.
        stages: Paths of the backbone's modules whose maps predict: blocks.2, for one.
    """

    weight: float = Field(default=1.0, gt=0, le=1000)
    stages: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_once)]


class StainMaps(nn.Module):
    """A 1 x 1 convolution for each stage.

    Args:
        settings: The task.
        backbone: Whose maps predict.
        px: Side of the crops.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    def __init__(self, settings: StainMapSettings, backbone: nn.Module, px: int) -> None:
        super().__init__()
        self.settings = settings
        widths = _widths(backbone, settings.stages, px)
        self.heads = nn.ModuleList(_head(width) for width in widths)

    def loss(self, maps: dict[str, Tensor], amounts: Tensor) -> Tensor:
        """The share of the stains' variance that is not predicted, mean over stages.

        Args:
            maps: [N, C, h, w] of each stage.
            amounts: [N, 3, H, W] of the same crops, as `stain_amounts` returns them.

        Returns:
            A scalar: 0 for a perfect prediction, 1 for a prediction of the mean.
        """
        found = [
            unexplained(head(maps[stage]), amounts)
            for head, stage in zip(self.heads, self.settings.stages, strict=True)
        ]
        return torch.stack(found).mean()


def stain_amounts(crops: Tensor) -> Tensor:
    """Amounts of hematoxylin, eosin and DAB in every pixel.

    Args:
        crops: Float [N, 3, H, W] in 0..1.

    Returns:
        Float [N, 3, H, W], as `pathencoder.stain.separate` gives them.
    """
    density = -crops.clamp(min=1 / 255).log10()
    matrix = torch.from_numpy(unmixing(HED)).to(density)
    return torch.einsum("nchw,cs->nshw", density, matrix)


@in_fp32
def unexplained(predicted: Tensor, amounts: Tensor) -> Tensor:
    """The share of the variance that is not predicted, mean over stains.

    Args:
        predicted: [N, S, h, w], in standard deviations from the mean of each stain.
        amounts: [N, S, H, W]; their means over the positions of the map are predicted.

    Returns:
        A scalar over this process's crops; mean and variance are those of all processes' crops.
    """
    height, width = predicted.shape[-2:]
    target = F.adaptive_avg_pool2d(amounts, (height, width))
    mean = distributed.mean(target.mean((0, 2, 3), keepdim=True))
    variance = distributed.mean((target - mean).square().mean((0, 2, 3), keepdim=True))
    variance = torch.maximum(variance, _LEAST_SHARE * variance.mean()) + _EPSILON
    return (predicted - (target - mean) / variance.sqrt()).square().mean()


def _head(width: int) -> nn.Conv2d:
    """A 1 x 1 convolution that starts with the prediction of the mean."""
    head = nn.Conv2d(width, len(HED), 1)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head


@torch.no_grad()
def _widths(backbone: nn.Module, stages: tuple[str, ...], px: int) -> list[int]:
    """Channels of the map of each stage."""
    if missing := [s for s in stages if s not in dict(backbone.named_modules())]:
        there = [name for name, _ in backbone.named_modules() if name and name.count(".") < 2]
        raise ConfigError(
            f"method.stain_maps.stages: {type(backbone).__name__} has no {', '.join(missing)}; it"
            f" has {', '.join(there)}"
        )
    blank = torch.zeros(1, 3, px, px, device=next(backbone.parameters()).device)
    training = backbone.training
    with feature_maps(backbone, stages) as maps:
        backbone.eval()(blank)
    backbone.train(training)
    if flat := [s for s in stages if maps[s].ndim != 4]:
        raise ConfigError(f"method.stain_maps.stages: the output of {', '.join(flat)} is no map")
    return [maps[stage].shape[1] for stage in stages]
