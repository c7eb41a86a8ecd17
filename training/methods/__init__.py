"""The protocol of a pretraining method.

A method is one file in this folder, named as recipes name it, with `Settings` (its part of the
config) and `build(settings, plan) -> Method`; the other files here hold what methods share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from training.data.loader import TileBatch

Views = list[Tensor]  # normalised float [N, 3, px, px], one a crop
# tensors of one element stay where they are: asking a GPU for each would make every step wait for
# it
Logs = dict[str, Tensor | float]


@dataclass(frozen=True)
class Plan:
    """What a method is built from: backbones, the run's size, and how images are normalised.

    backbone: makes a new network with the starting weights at each call; its output is [N, width].
    spec: what its export will be, for
    methods that learn from the embedding as it is read.
    """

    backbone: Callable[[], nn.Module]
    width: int
    steps: int
    batch: int  # over all processes
    tiles: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    generator: torch.Generator
    spec: Callable[[], EncoderSpec] | None = None


@runtime_checkable
class Method(Protocol):
    """A pretraining method: an nn.Module whose state dict is all that a checkpoint needs of it.

    backbone: the network whose weights the optimiser moves; everything else that learns counts as
    its head. `views` may run in a thread
    while the step before is learnt from, so it must not read what a step changes; a method whose
    loss draws from the plan's generator too says so with `draws_in_loss = True`.
    """

    backbone: nn.Module

    def views(self, batch: TileBatch) -> Views:
        """Tiles to the crops that the loss compares."""

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """The scalar to go down, and what to log beside it."""

    def after_step(self, step: int) -> None:
        """After the optimiser has moved: teachers, averages, centres."""

    def encoder(self) -> nn.Module:
        """The network to export."""


def module_of(name: str) -> ModuleType:
    """The file of a method. Raises ConfigError naming those there are."""
    files = {m.name for m in pkgutil.iter_modules(__path__)}
    if name in files and _is_method(name):
        return importlib.import_module(f"{__name__}.{name}")
    raise ConfigError(f"method {name!r} is not one of {sorted(n for n in files if _is_method(n))}")


def _is_method(name: str) -> bool:
    return hasattr(importlib.import_module(f"{__name__}.{name}"), "build")


def build(settings: Any, plan: Plan) -> nn.Module:
    """The method that its settings name."""
    method: nn.Module = module_of(settings.name).build(settings, plan)
    return method
