"""Dense tasks without labels: maps of the backbone predict what lies at every position of a crop.

A 1 x 1 convolution predicts a target of every pixel, averaged over the stride of the map, of the
crop before its colours change: so maps keep where nuclei and fibres lie whatever the colours are.
The convolutions are not exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.data.loader import TileBatch
from training.methods.parts.dense_task import Beside, DenseTask, DenseTaskSettings
from training.methods.parts.feature_maps import map_widths
from training.methods.parts.precision import in_fp32

# The least variance of a channel, as a share of the mean of all: one that hardly varies in a batch
# is noise, and gets no larger weight than this gives it.
_LEAST_SHARE = 0.05
_EPSILON = 1e-6  # against a batch whose target does not vary


@dataclass(frozen=True)
class Source:
    """A target of every pixel.

    Attributes:
        channels: S.
        of: Makes of a batch what gives the targets [N, S, H, W] of crops of it.
    """

    channels: int
    of: Callable[[TileBatch], Beside]


class PixelTargets(DenseTask):
    """A 1 x 1 convolution for each stage.

    Args:
        settings: The task.
        backbone: Whose maps predict.
        px: Side of the crops.
        source: The target.
        setting: The name of the settings, for messages.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    def __init__(
        self,
        settings: DenseTaskSettings,
        backbone: nn.Module,
        px: int,
        *,
        source: Source,
        setting: str,
    ) -> None:
        super().__init__()
        self.settings, self._source = settings, source
        widths = map_widths(backbone, settings.stages, px, f"{setting}.stages")
        self.heads = nn.ModuleList(_head(width, source.channels) for width in widths)

    def beside(self, batch: TileBatch) -> Beside:
        """The targets of crops."""
        return self._source.of(batch)

    def loss(self, maps: Mapping[str, Tensor], beside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The share of the targets' variance that is not predicted, mean over stages.

        It is 0 for a perfect prediction and 1 for that of the mean; the figure is 1 minus it.
        """
        targets = torch.cat(list(beside))
        found = [
            unexplained(head(maps[stage]), targets)
            for head, stage in zip(self.heads, self.settings.stages, strict=True)
        ]
        loss = torch.stack(found).mean()
        return loss, 1 - loss.detach()


@in_fp32
def unexplained(predicted: Tensor, targets: Tensor) -> Tensor:
    """The share of the variance that is not predicted, mean over channels.

    Args:
        predicted: [N, S, h, w], in standard deviations from the mean of each channel.
        targets: [N, S, H, W]; their means over the positions of the map are predicted.

    Returns:
        A scalar over this process's crops; mean and variance are those of all processes' crops.
    """
    height, width = predicted.shape[-2:]
    target = F.adaptive_avg_pool2d(targets, (height, width))
    mean = distributed.mean(target.mean((0, 2, 3), keepdim=True))
    variance = distributed.mean((target - mean).square().mean((0, 2, 3), keepdim=True))
    variance = torch.maximum(variance, _LEAST_SHARE * variance.mean()) + _EPSILON
    return (predicted - (target - mean) / variance.sqrt()).square().mean()


def _head(width: int, channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that starts with the prediction of the mean."""
    head = nn.Conv2d(width, channels, 1)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head
