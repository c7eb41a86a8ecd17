"""The dense tasks beside a method that compares crops: their settings, pass and loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.data.loader import TileBatch
from training.methods import Logs, MethodSettings, Views
from training.methods.parts import crop_scale, nuclei_maps, stain_maps
from training.methods.parts.context import Context, ContextSettings
from training.methods.parts.dense_contrast import DenseContrast, DenseContrastSettings
from training.methods.parts.dense_task import Beside, DenseTask, DenseTaskSettings
from training.methods.parts.feature_maps import feature_maps
from training.methods.parts.multicrop import forward_by_size
from training.methods.parts.nuclei_maps import NucleiMapSettings
from training.methods.parts.pixel_targets import PixelTargets, Source

# The names of their modules, which checkpoints hold.
_MODULES = {
    "stain_maps": "stains",
    "nuclei_maps": "nuclei",
    "crop_scale": "scale",
    "dense_contrast": "dense",
    "context": "context",
}


class DenseSettings(MethodSettings):
    """The dense tasks of a method, each by its settings; None: without.

    Attributes:
        stain_maps: Maps predict the densities of stains.
        nuclei_maps: Maps predict where nuclei lie, as the bundled nuclei network finds them.
        crop_scale: Maps predict how much the crop is magnified.
        dense_contrast: Maps of two crops agree where both show the same place.
        context: The map of a crop predicts what the map of a larger one shows around it.
    """

    stain_maps: DenseTaskSettings | None = None
    nuclei_maps: NucleiMapSettings | None = None
    crop_scale: DenseTaskSettings | None = None
    dense_contrast: DenseContrastSettings | None = None
    context: ContextSettings | None = None

    def dense_tasks(self) -> dict[str, DenseTaskSettings]:
        """The settings of the tasks that are set, by name."""
        found = {name: getattr(self, name) for name in _MODULES}
        return {name: task for name, task in found.items() if task is not None}

    def dense_chance_loss(self, tiles: int) -> float:
        """Their joint loss for maps that are the same everywhere."""
        return sum(task.weight * task.chance_loss(tiles) for task in self.dense_tasks().values())


class DenseTasks:
    """The dense tasks of a method, whose heads are modules of the method.

    Args:
        settings: The method's.
        method: Gets the heads.
        backbone: Whose maps the tasks learn from.
        px: Side of its large crops.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    def __init__(
        self, settings: DenseSettings, method: nn.Module, backbone: nn.Module, px: int
    ) -> None:
        self._tasks = {name: _made(name, settings, backbone, px) for name in settings.dense_tasks()}
        for name, task in self._tasks.items():
            method.add_module(_MODULES[name], task)

    def beside(self, batch: TileBatch) -> list[Beside]:
        """What `make_views` makes of the large crops for them."""
        return [task.beside(batch) for task in self._tasks.values()]

    def forward(
        self, network: nn.Module, backbone: nn.Module, crops: Views, large: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A pass of all crops.

        Args:
            network: The backbone, or what it lies in.
            backbone: Whose maps the tasks learn from.
            crops: The large ones first.
            large: Their number.

        Returns:
            The network's output for all crops, and the maps of the large ones.
        """
        stages = {stage: None for task in self._tasks.values() for stage in task.settings.stages}
        if not stages:
            return forward_by_size(network, crops), {}
        with feature_maps(backbone, list(stages)) as maps:
            features = forward_by_size(network, crops[:large])
        if crops[large:]:
            features = torch.cat([features, forward_by_size(network, crops[large:])])
        return features, maps

    def add(
        self, loss: Tensor, logs: Logs, maps: Mapping[str, Tensor], beside: Views
    ) -> tuple[Tensor, Logs]:
        """Add the tasks' weighted losses to a method's, and their figures to its logs.

        Args:
            loss: The method's.
            logs: Its figures.
            maps: As of `forward`.
            beside: What `make_views` made for the tasks.
        """
        crops = len(beside) // max(1, len(self._tasks))
        for i, (name, task) in enumerate(self._tasks.items()):
            own, figure = task.loss(maps, beside[i * crops : (i + 1) * crops])
            loss = loss + task.settings.weight * own
            logs = {**logs, name: figure}
        return loss, logs


def _made(name: str, settings: DenseSettings, backbone: nn.Module, px: int) -> DenseTask:
    own = settings.dense_tasks()[name]
    if isinstance(own, ContextSettings):
        return Context(own, backbone, px)
    if isinstance(own, DenseContrastSettings):
        return DenseContrast(own, backbone, px)
    return PixelTargets(own, backbone, px, source=_source(name, own), setting=f"method.{name}")


def _source(name: str, settings: DenseTaskSettings) -> Source:
    if isinstance(settings, NucleiMapSettings):
        return nuclei_maps.source(settings)
    return crop_scale.SOURCE if name == "crop_scale" else stain_maps.SOURCE
