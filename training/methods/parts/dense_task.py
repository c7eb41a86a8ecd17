"""A dense task: it learns from maps of the backbone, beside a method that compares crops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from training.bounds import Name, Section
from training.data.loader import TileBatch

# Crops before their colours change, float [N, 3, px, px] in 0..1, and their places [N, 2, 3] in the
# tiles (`augment.crop_places`) -> what a task needs of them, one row a tile.
Beside = Callable[[Tensor, Tensor], Tensor]


def _once(stages: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(stages)) < len(stages):
        raise ValueError("name each stage once")
    return stages


class DenseTaskSettings(Section):
    """Settings of a dense task.

    Attributes:
        weight: Of its loss.
        stages: Paths of the backbone's modules whose maps the task learns from: blocks.2, for one.
    """

    weight: float = Field(default=1.0, gt=0, le=1000)
    stages: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_once)]

    def chance_loss(self, tiles: int) -> float:
        """The loss, not weighted, of maps that are the same everywhere.

        Args:
            tiles: Tiles of one pass, over all processes.
        """
        return 1.0


class DenseTask(nn.Module, ABC):
    """Heads on maps, and their loss. The heads are not exported.

    Attributes:
        settings: Its settings.
    """

    settings: DenseTaskSettings

    @abstractmethod
    def beside(self, batch: TileBatch) -> Beside:
        """What makes of each large crop of a batch what `loss` needs of it."""

    @abstractmethod
    def loss(self, maps: Mapping[str, Tensor], beside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The loss, and a figure for the log that is 1 at best.

        Args:
            maps: [crops N, C, h, w] of each stage, crop by crop.
            beside: For each crop what `beside` made of it.
        """
