"""Distillation: a network predicts from a coloured crop what encoders give for the uncoloured one.

An encoder that is its own teacher becomes less sensitive to the colours that are drawn; a network
of another size learns from one encoder or several (Hinton et al. 2015, arXiv:1503.02531; features
as targets: Romero et al. 2015, arXiv:1412.6550; several teachers, each target scaled to unit
variance: Ranzinger et al. 2024, arXiv:2312.06709).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pooling import stage_rule
from pathencoder.spec import EncoderSpec
from training import augment, distributed
from training.augment import ColourSettings, CropSettings
from training.bounds import EncoderName
from training.data.loader import TileBatch
from training.methods import Logs, Method, MethodSettings, Plan, Views
from training.methods.parts.feature_maps import feature_maps
from training.methods.parts.multicrop import averaged
from training.methods.parts.precision import in_fp32

_MOMENTUM = 0.99  # of the targets' variances
# The least variance of a channel, as a share of its target's mean variance: channels that hardly
# vary get no larger weight than this gives them.
_LEAST_SHARE = 0.05
_EPSILON = 1e-6  # against a target that does not vary at all, as of blank tiles


def _at_least_one(crops: CropSettings) -> CropSettings:
    if crops.count < 1:
        raise ValueError("count must be at least 1")
    return crops


class Settings(MethodSettings):
    """Distillation's part of a config.

    Attributes:
        teachers: Encoders, as `load_encoder` takes them.
        crop: Crops that teachers and network see.
        colour: Colour changes of the network's crops; the teachers' have none.
        average: Decay of the exported average of the backbone's weights.
    """

    name: Literal["distill"] = "distill"
    teachers: tuple[EncoderName, ...] = Field(min_length=1)
    crop: Annotated[CropSettings, AfterValidator(_at_least_one)] = CropSettings(px=224)
    colour: ColourSettings = ColourSettings()
    average: float = Field(default=0.99, ge=0, lt=1)

    def teacher_encoders(self) -> tuple[str, ...]:
        """The teachers."""
        return self.teachers


def build(settings: Settings, plan: Plan) -> Method:
    """A backbone and its teachers."""
    return Distill(settings, plan)


class Distill(Method):
    """The backbone, and a linear map for each target.

    Targets are each teacher's embedding and its mean over the last feature map (or its patch
    tokens), so that layers after the stages of the embedding keep fitting them. The exported
    encoder is the backbone's moving average.

    Attributes:
        variances: Of every channel of every target, a moving average.
    """

    backbone: nn.Module
    variances: Tensor

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        assert plan.spec is not None
        self.settings, self.plan, self.spec = settings, plan, plan.spec()
        # In a tuple, so that they are no submodules: they are not trained, sharded or saved.
        # On the CPU also where the method itself is built on the meta device.
        with torch.device("cpu"):
            self._teachers = tuple(load_encoder(str(t), device="cpu") for t in settings.teachers)
        _refuse_licences([t.spec for t in self._teachers], self.spec)
        self.backbone = plan.backbone()
        self.average = averaged(self.backbone, settings.average)
        widths = [
            width for teacher in self._teachers for width in (teacher.spec.dim, teacher.spec.width)
        ]
        self.heads = nn.ModuleList(
            _head((self.spec.dim, plan.width)[i % 2], width) for i, width in enumerate(widths)
        )
        self.register_buffer("variances", torch.zeros(sum(widths)))

    def views(self, batch: TileBatch) -> Views:
        """The coloured crops, then the same crops uncoloured."""
        s, rng, source = self.settings, self.plan.generator, augment.source_of(batch.tiles)
        within = augment.fields(len(batch.tiles), s.crop, rng)
        plain = [augment.crops(source, s.crop, rng, within) for _ in range(s.crop.count)]
        coloured = [augment.colours(crop, batch.stains, s.colour, rng) for crop in plain]
        return [
            augment.normalise(crop, self.plan.mean, self.plan.std) for crop in (*coloured, *plain)
        ]

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """The share of the targets' variance that is not predicted, mean over channels and targets.

        0 for a perfect prediction, 1 for a prediction of the mean.
        """
        coloured, plain = torch.cat(views[: len(views) // 2]), torch.cat(views[len(views) // 2 :])
        targets = self._targets(plain)
        self._update_variances(torch.cat(targets, dim=1))
        variances = [
            torch.maximum(v, _LEAST_SHARE * v.mean() + _EPSILON)
            for v in self.variances.split([t.shape[1] for t in targets])
        ]
        outputs = self._outputs(coloured)
        errors = [
            unexplained(head(outputs[i % 2]), target, variance)
            for i, (head, target, variance) in enumerate(
                zip(self.heads, targets, variances, strict=True)
            )
        ]
        return torch.stack(errors).mean(), {
            "embedding": 1 - torch.stack(errors[::2]).mean().detach()
        }

    def after_step(self, step: int) -> None:
        """Update the average."""
        self.average.update_parameters(self.backbone)

    def encoder(self) -> nn.Module:
        """The averaged backbone."""
        return self.average.module

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding by the readout's rule, and the network's own output."""
        rule = stage_rule(self.spec.embedding)
        with feature_maps(self.backbone, rule.stages if rule else ()) as maps:
            output: Tensor = self.backbone(x)
        return (rule.embedding(maps) if rule else output), output

    @torch.no_grad()
    def _targets(self, x: Tensor) -> list[Tensor]:
        """[n, D] of each teacher's embedding and mean, for crops as the backbone gets them."""
        pixels = x * _column(self.plan.std, x) + _column(self.plan.mean, x)
        found = (
            teacher.to(x.device)(augment.normalise(pixels, teacher.spec.mean, teacher.spec.std))
            for teacher in self._teachers
        )
        return [
            target.float() for features in found for target in (features.embedding, features.mean)
        ]

    @torch.no_grad()
    def _update_variances(self, targets: Tensor) -> None:
        """Move them towards those of the joint batch; the first batch sets them."""
        if not self.training:
            return
        mean = distributed.mean(targets.mean(0))
        now = distributed.mean((targets - mean).square().mean(0))
        # not a Python number, which the host would have to read from the device
        weight = torch.where(self.variances.any(), 1 - _MOMENTUM, 1.0)
        self.variances.lerp_(now, weight)


@in_fp32
def unexplained(prediction: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """The share of a target's variance that is not predicted, mean over rows and channels.

    Args:
        prediction: Float [N, D].
        target: Float [N, D].
        variance: Of the target's channels, [D].

    Returns:
        A scalar; 0 for a perfect prediction, 1 for a prediction of the mean.
    """
    return ((prediction - target).square() / variance).mean()


def _refuse_licences(teachers: Sequence[EncoderSpec], student: EncoderSpec) -> None:
    """Raises ConfigError for a commercial student of a non-commercial teacher."""
    for teacher in teachers:
        if student.commercial and not teacher.commercial:
            raise ConfigError(
                f"teacher {teacher.name} is licensed {teacher.licence}, without commercial use, and"
                " so are its students: set export.commercial=false and"
                f" export.licence={teacher.licence}, or use another teacher"
            )


def _head(channels: int, target_channels: int) -> nn.Linear:
    """A linear map that starts as the identity where the widths are equal.

    A network that starts as its own teacher then starts with a loss of 0 on uncoloured crops.
    """
    head = nn.Linear(channels, target_channels)
    if channels == target_channels:
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return head


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, 3, 1, 1)
