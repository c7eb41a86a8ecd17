"""A pretraining method: what it offers to the trainer, and where it is found.

A method is one file in this folder, named as recipes name it. The file holds `Settings`, a
`MethodSettings`, and `build(settings, plan)`, which returns a `Method`. What methods share is in
parts/.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from training.augment import CropSettings
from training.bounds import Section
from training.data.loader import TileBatch
from training.data.values import nearest

Views = list[Tensor]  # normalised float [N, 3, px, px], one a crop
# Tensors of one element stay on their device: reading one from a GPU makes the step wait for it.
Logs = dict[str, Tensor | float]


class MethodSettings(Section):
    """A method's part of a config, and what the trainer must know before the method is built.

    Only fields are settings. The class variables and the functions describe the method; a method
    overrides those whose default is wrong for it.

    Attributes:
        name: The method's file in this folder.
        own_network: The method has its own network. The recipe's backbone is not used, and
            `Method.export` writes the exported folder.
        compares_tiles: A tile's loss depends on the other tiles of its pass, so that
            optim.accumulate changes the loss.
    """

    own_network: ClassVar[bool] = False
    compares_tiles: ClassVar[bool] = False
    name: str

    def crop_sizes(self) -> dict[str, int]:
        """Side in pixels of each kind of crop that is drawn, by the name of its setting.

        The default: every `CropSettings` whose count is not 0.
        """
        return {name: v.px for name, v in self if isinstance(v, CropSettings) and v.count}

    def chance_loss(self, tiles: int) -> float | None:
        """The loss of an encoder that gives every tile the same embedding.

        Args:
            tiles: Tiles of one pass, over all processes.

        Returns:
            The loss; None, the default, where there is no such value.
        """
        return None

    def teacher_encoders(self) -> tuple[str, ...]:
        """The encoders that the method learns from, as `load_encoder` takes them; default: none."""
        return ()


@dataclass(frozen=True)
class Plan:
    """What a method is built from: backbones, the run's size, and how images are normalised.

    Attributes:
        backbone: Makes a new network with the starting weights at each call; its output is
            [N, width].
        width: Channels of the backbone's output.
        steps: Optimiser steps of the run.
        batch: Tiles of a batch, over all processes.
        tiles: Tiles of the corpus.
        mean: Normalisation of the images.
        std: Normalisation of the images.
        generator: The source of every random number of the views.
        spec: Makes the spec of the exported encoder, for methods that need the embedding as it
            will be read.
    """

    backbone: Callable[[], nn.Module]
    width: int
    steps: int
    batch: int
    tiles: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    generator: torch.Generator
    spec: Callable[[], EncoderSpec] | None = None


class Method(nn.Module, ABC):
    """Base class of pretraining methods. Its state dict is all that a checkpoint holds of it.

    Attributes:
        draws_in_loss: `loss` draws from the plan's generator too, so that the views of the next
            step must wait for it.
        converged: The method asks to end the run; read after each `after_step`.
    """

    draws_in_loss: ClassVar[bool] = False
    converged: bool = False

    @property
    def backbone(self) -> nn.Module:
        """The network that is trained at the backbone's learning rate; all else is a head.

        The default: the submodule of this name. A method whose backbone lies inside another
        submodule overrides this.
        """
        network = self._modules.get("backbone")
        if network is None:
            raise NotImplementedError(f"{type(self).__name__} has no backbone: assign one")
        return network

    @abstractmethod
    def views(self, batch: TileBatch) -> Views:
        """The crops that the loss compares.

        It may run in a thread during the step before, so it must not read what a step changes.
        """

    @abstractmethod
    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """The scalar to minimise, and what to log with it."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step, to update teachers and averages; default: nothing."""

    def schedule(self, step: int) -> dict[str, float]:
        """What follows a schedule in a step, for the log: momentum, temperature; default: none."""
        return {}

    def encoder(self) -> nn.Module:
        """The network to export; default: the backbone."""
        return self.backbone

    def export(self, folder: Path, described: dict[str, Any]) -> Path:
        """Write the exported folder; called only where `MethodSettings.own_network` is set.

        Args:
            folder: Where to write.
            described: What the run was made from and did, for the folder's description: training,
                licence, commercial, base_model, stains, mpp and the like, plain values.

        Returns:
            The folder.
        """
        raise NotImplementedError(f"{type(self).__name__} has its own network and no export")


def names() -> list[str]:
    """The methods that exist."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def module_of(name: str) -> ModuleType:
    """The file of a method.

    Raises:
        ConfigError: There is no such method; the message lists those that exist.
    """
    known = names()
    if name not in known:
        raise ConfigError(f"method.name={name!r}{nearest(name, known)}; one of {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{name}")


def build(settings: MethodSettings, plan: Plan) -> Method:
    """The method that its settings name."""
    method: Method = module_of(settings.name).build(settings, plan)
    return method
