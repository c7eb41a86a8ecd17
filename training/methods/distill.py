"""Distillation: a network learns to say of a coloured crop what encoders, kept as they are, say of the same crop uncoloured.

One encoder taught by itself becomes steadier under the colours that are drawn; a network of another size learns from one encoder or
several (Hinton et al. 2015, arXiv:1503.02531; features as targets: Romero et al. 2015, arXiv:1412.6550; several teachers, each target
brought to unit variance: Ranzinger et al. 2024, arXiv:2312.06709).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pathencoder import network as readout
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pooling import stage_rule
from pathencoder.spec import EncoderSpec
from training import augment, distributed
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Logs, Plan, Views

_MOMENTUM = 0.99  # of the targets' variances
# of the mean variance of a target: channels that hardly ever move count no more than this
_LEAST = 0.05
_NOTHING = 1e-6  # a target that never moves, as of blank tiles, is nothing to be divided by


def _some(crops: CropSettings) -> CropSettings:
    if crops.count < 1:
        raise ValueError("count must be at least 1")
    return crops


class Settings(BaseModel):
    """Distillation's part of a config. teachers: what `load_encoder` reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["distill"] = "distill"
    teachers: tuple[Path | str, ...] = Field(min_length=1)
    crop: Annotated[CropSettings, AfterValidator(_some)] = CropSettings(px=224)
    colour: ColourSettings = ColourSettings()
    # decay of the exported average of the backbone's weights
    average: float = Field(0.99, ge=0, lt=1)


def build(settings: Settings, plan: Plan) -> nn.Module:
    """A backbone and its teachers."""
    return Distill(settings, plan)


class Distill(nn.Module):
    """The backbone, and a linear map a target.

    Targets are each teacher's embedding and its mean over the last feature map (or its patch
    tokens), so that what comes after the stages of the embedding goes on to fit them. The exported
    encoder is the backbone's moving average.
    """

    variances: Tensor  # of every channel of every target

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        assert plan.spec is not None
        self.settings, self.plan, self.spec = settings, plan, plan.spec()
        # Not registered: files hold their weights already, and nothing of them is trained, sharded
        # or kept in checkpoints.
        self._teachers = tuple(load_encoder(str(name), device="cpu") for name in settings.teachers)
        _respect_licences([t.spec for t in self._teachers], self.spec)
        self.backbone = plan.backbone()
        self.average = AveragedModel(
            self.backbone, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True
        )
        self.average.requires_grad_(requires_grad=False)
        widths = [
            width for teacher in self._teachers for width in (teacher.spec.dim, teacher.spec.width)
        ]
        self.heads = nn.ModuleList(
            _head((self.spec.dim, plan.width)[i % 2], width) for i, width in enumerate(widths)
        )
        self.register_buffer("variances", torch.zeros(sum(widths)))

    def views(self, batch: TileBatch) -> Views:
        """The coloured crops, then the same as they are."""
        s, rng, source = self.settings, self.plan.generator, augment.source_of(batch.tiles)
        within = augment.fields(len(batch.tiles), s.crop, rng)
        plain = [augment.crops(source, s.crop, rng, within) for _ in range(s.crop.count)]
        coloured = [augment.colours(crop, batch.stains, s.colour, rng) for crop in plain]
        return [
            augment.normalise(crop, self.plan.mean, self.plan.std) for crop in (*coloured, *plain)
        ]

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """The targets' share of variance that is not predicted, mean over channels and targets: 0 when all is, 1 for their means."""
        coloured, plain = torch.cat(views[: len(views) // 2]), torch.cat(views[len(views) // 2 :])
        targets = self._targets(plain)
        self._follow(torch.cat(targets, dim=1))
        variances = [
            torch.maximum(v, _LEAST * v.mean() + _NOTHING)
            for v in self.variances.split([t.shape[1] for t in targets])
        ]
        said = self._said(coloured)
        missed = [
            ((head(said[i % 2]).float() - target).square() / variance).mean()
            for i, (head, target, variance) in enumerate(
                zip(self.heads, targets, variances, strict=True)
            )
        ]
        return torch.stack(missed).mean(), {
            "embedding": 1 - torch.stack(missed[::2]).mean().detach()
        }

    def after_step(self, step: int) -> None:
        """Move the average."""
        self.average.update_parameters(self.backbone)

    def encoder(self) -> nn.Module:
        """The averaged backbone."""
        return self.average.module

    def _said(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding by the readout's rule, and the network's own output."""
        rule = stage_rule(self.spec.embedding)
        with _outputs(self.backbone, rule.stages if rule else ()) as maps:
            output: Tensor = self.backbone(x)
        return (rule.embedding(maps) if rule else output), output

    @torch.no_grad()
    def _targets(self, x: Tensor) -> list[Tensor]:
        """[n, D] of each teacher's embedding and mean, for crops normalised as the backbone's are."""
        pixels = x * _column(self.plan.std, x) + _column(self.plan.mean, x)
        found = (
            teacher.to(x.device)(augment.normalise(pixels, teacher.spec.mean, teacher.spec.std))
            for teacher in self._teachers
        )
        return [
            target.float() for features in found for target in (features.embedding, features.mean)
        ]

    @torch.no_grad()
    def _follow(self, targets: Tensor) -> None:
        """The variances move towards those of the joint batch's targets; the first batch sets them."""
        if not self.training:
            return
        mean = distributed.mean(targets.mean(0))
        now = distributed.mean((targets - mean).square().mean(0))
        self.variances.lerp_(now, 1 - _MOMENTUM if bool(self.variances.any()) else 1.0)


def _respect_licences(teachers: Sequence[EncoderSpec], student: EncoderSpec) -> None:
    """Raises ConfigError for a student that would be anyone's while one of its teachers is for research only."""
    for teacher in teachers:
        if student.commercial and not teacher.commercial:
            raise ConfigError(
                f"teacher {teacher.name} is licensed {teacher.licence}, for research only, and what"
                " it taught is too: set export.commercial=false and"
                f" export.licence={teacher.licence}, or take another teacher"
            )


def _head(own: int, wanted: int) -> nn.Linear:
    """A linear map that starts as the identity where it can.

    A network that starts as its teacher then starts with nothing to learn but steadiness.
    """
    head = nn.Linear(own, wanted)
    if own == wanted:
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return head


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, 3, 1, 1)


@contextmanager
def _outputs(network: nn.Module, stages: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside: the maps [N, C, h, w] that these modules give in a forward pass, by path."""
    maps: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            maps[path] = readout.channels_first(network, output)

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(path)) for path in stages]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
