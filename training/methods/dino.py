"""DINO: a student matches a moving average of itself over crops of different size.

Caron et al. 2021, arXiv:2104.14294; equations below are of that paper. `patches` adds iBOT's masked
patches, `spread` a regulariser of the embedding, and `balance: sinkhorn` DINOv2's targets.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.augment import ColourSettings, CropSettings
from training.bounds import Fraction, Temperature, Width
from training.data.loader import TileBatch
from training.methods import Logs, Method, Plan, Views
from training.methods.parts.dense_tasks import DenseSettings, DenseTasks
from training.methods.parts.ibot import MaskedPatches, PatchSettings, hidden, patch_loss, tokens_of
from training.methods.parts.multicrop import Pair, follow, forward_by_size, make_views
from training.methods.parts.precision import in_fp32
from training.methods.parts.regularisers import SpreadSettings, spread
from training.methods.parts.sizing import Sizing
from training.methods.parts.targets import Centring, Sinkhorn
from training.methods.parts.teacher import as_teacher
from training.schedules import cosine, linear

SIZING = Sizing(
    "dino",
    small=(1024, 128),
    large=(2048, 256),
    least_batch=32,
    least_tiles=500,
    remedy="a larger data.batch, more tiles, or method simclr",
)


class Settings(DenseSettings):
    """DINO's part of a config. None: chosen by batch, corpus and length (parts/sizing.py).

    Attributes:
        global_crops: Crops that teacher and student see.
        local_crops: Smaller crops that the student alone sees.
        colour: Colour changes of every crop.
        hidden: Width of the head's hidden layers.
        head_norm: BatchNorm inside the head: for CNNs, whose pooled features all have nearly the
            same direction.
        bottleneck: Width of the head's bottleneck.
        prototypes: Outputs of the head.
        student_temperature: Of the student's softmax.
        teacher_temperature: At the start, and after the warm-up.
        teacher_warmup: Share of the run.
        momentum: Of the teacher at the start; it ends at 1.
        balance: What keeps the targets from collapse.
        center_momentum: Of the centre, with `centring`.
        freeze_last: Share of the run, from its start, in which the last layer stays fixed.
        spread: A regulariser that spreads the embeddings; null: none.
        patches: iBOT's masked patches, for ViTs; null: none.
    """

    name: Literal["dino"] = "dino"
    global_crops: Pair = CropSettings(count=2, px=112, area=(0.32, 1.0))
    local_crops: CropSettings = CropSettings(count=4, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    hidden: Width | None = None
    head_norm: bool = False
    bottleneck: Width | None = None
    prototypes: int | None = Field(default=None, ge=2, le=1_000_000)
    student_temperature: Temperature = 0.1
    teacher_temperature: tuple[Temperature, Temperature] | None = None
    teacher_warmup: Fraction = 0.1
    momentum: float | None = Field(default=None, gt=0, lt=1)
    balance: Literal["centring", "sinkhorn"] = "centring"
    center_momentum: float = Field(default=0.9, ge=0, lt=1)
    freeze_last: Fraction = 0.02
    spread: SpreadSettings | None = None
    patches: PatchSettings | None = None

    @model_validator(mode="after")
    def _one_dense_task(self) -> Settings:
        if self.patches and (tasks := self.dense_tasks()):
            raise ValueError(
                f"patches hides parts of the crops whose maps {', '.join(tasks)} would learn from:"
                " set one of them to null"
            )
        return self


def build(settings: Settings, plan: Plan) -> Method:
    """DINO around a backbone."""
    return Dino(settings, plan)


class Dino(Method):
    """Student and teacher, each a backbone and a head.

    `balance` keeps the teacher's targets from collapse; `patches` is the task of masked patches.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        sizes = SIZING.sizes(plan)
        width, neck = settings.hidden or sizes.hidden, settings.bottleneck or sizes.out
        self.prototypes = settings.prototypes or sizes.prototypes
        self.momentum = settings.momentum or sizes.momentum
        self.temperatures = settings.teacher_temperature or sizes.teacher_temperature

        def head() -> DinoHead:
            return DinoHead(plan.width, width, neck, self.prototypes, norm=settings.head_norm)

        self.student, self.teacher = (nn.Sequential(plan.backbone(), head()) for _ in range(2))
        self.patches = (
            MaskedPatches(settings.patches, self.student[0], head) if settings.patches else None
        )
        self.tasks = DenseTasks(settings, self, self.backbone, settings.global_crops.px)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(requires_grad=False)
        self.balance, self.patch_balance = self._balance(), self._balance()
        chosen = {
            "hidden": width,
            "bottleneck": neck,
            "prototypes": self.prototypes,
            "momentum": self.momentum,
        }
        SIZING.announce(plan, {**chosen, "teacher_temperature": self.temperatures})

    def views(self, batch: TileBatch) -> Views:
        """The global crops, then the local ones, coloured and normalised.

        After them with `patches` a mask, bool [N, h, w], for each global crop, and the positions
        that they mask; or what dense tasks need.
        """
        s = self.settings
        kinds = (s.global_crops, s.local_crops)
        made = make_views(batch, kinds, s.colour, self.plan, self.tasks.beside(batch))
        masks = (
            self.patches.masks(made[: s.global_crops.count], self.backbone, self.plan.generator)
            if self.patches
            else []
        )
        return made + masks

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """`dino_loss`, plus the weighted losses of the tasks beside it where they are set."""
        s, n = self.settings, self.settings.global_crops.count
        others = views[n + s.local_crops.count :]
        views = views[: n + s.local_crops.count]
        # Prototypes that follow an untrained backbone collapse.
        self._freeze_last_layers(frozen=step < s.freeze_last * self.plan.steps)
        temperature = self._temperature(step)
        if self.patches:
            features, targets, patch_term = self._masked(views, others, temperature)
            maps = dict[str, Tensor]()
        else:
            targets, patch_term = self._targets(views[:n], temperature), None
            features, maps = self.tasks.forward(self.backbone, self.backbone, views, n)
        logits = self.student[1](features)
        loss = dino_loss(logits.chunk(len(views)), targets, temperature=s.student_temperature)
        logs = {**_entropies(targets, self.prototypes)}
        if s.patches and patch_term is not None:
            loss = loss + s.patches.weight * patch_term
            logs["patch_loss"] = patch_term.detach()
        if s.spread:
            term = spread(s.spread, features.chunk(len(views))[:n])
            loss = loss + s.spread.weight * term
            logs[s.spread.name] = term.detach()
        return self.tasks.add(loss, logs, maps, others if maps else [])

    def after_step(self, step: int) -> None:
        """Move the teacher: teacher = m teacher + (1 - m) student.

        m goes from self.momentum to 1 along a cosine.
        """
        m = self._momentum(step)
        follow(self.teacher, self.student, m)
        if self.patches and self.patches.teacher_head and self.patches.student_head:
            follow(self.patches.teacher_head, self.patches.student_head, m)

    def schedule(self, step: int) -> dict[str, float]:
        """The teacher's momentum and temperature."""
        return {"momentum": self._momentum(step), "teacher_temperature": self._temperature(step)}

    def _momentum(self, step: int) -> float:
        return cosine(self.momentum, 1.0, step, self.plan.steps)

    def _temperature(self, step: int) -> float:
        warmup = int(self.settings.teacher_warmup * self.plan.steps)
        return linear(*self.temperatures, step, warmup)

    @property
    def backbone(self) -> nn.Module:
        """The student's backbone."""
        return self.student[0]

    def encoder(self) -> nn.Module:
        """The teacher's backbone."""
        return self.teacher[0]

    def _masked(
        self, views: Views, masks: Views, temperature: float
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """The student's features of all crops, the targets of the global ones, the patch loss."""
        assert self.patches is not None
        n = self.settings.global_crops.count
        task, mask, where = self.patches, torch.cat(masks[:-1]), masks[-1]
        with tokens_of(self.teacher[0]) as seen:
            targets = self._targets(views[:n], temperature)
        patch_targets = self._patch_targets(torch.cat(seen).flatten(0, 1)[where], temperature)
        with hidden(self.backbone, task.mask_token, mask), tokens_of(self.backbone) as predicted:
            features = [forward_by_size(self.backbone, views[:n])]
        if len(views) > n:
            features.append(forward_by_size(self.backbone, views[n:]))
        logits = (task.student_head or self.student[1])(torch.cat(predicted).flatten(0, 1)[where])
        loss = patch_loss(
            logits, patch_targets, mask, where, temperature=self.settings.student_temperature
        )
        return torch.cat(features), targets, loss

    def _targets(self, views: Views, temperature: float) -> tuple[Tensor, ...]:
        with as_teacher(self.teacher):
            targets: Tensor = self.balance(self.teacher(torch.cat(views)), temperature)
        return targets.chunk(len(views))

    def _patch_targets(self, tokens: Tensor, temperature: float) -> Tensor:
        assert self.patches is not None
        head = self.patches.teacher_head or self.teacher[1]
        with as_teacher(head):
            targets: Tensor = self.patch_balance(head(tokens), temperature)
        return targets

    def _balance(self) -> nn.Module:
        s = self.settings
        return (
            Sinkhorn() if s.balance == "sinkhorn" else Centring(self.prototypes, s.center_momentum)
        )

    def _freeze_last_layers(self, *, frozen: bool) -> None:
        for head in (self.student[1], self.patches.student_head if self.patches else None):
            if isinstance(head, DinoHead):
                head.last_frozen = frozen


class DinoHead(nn.Module):
    """[N, width] -> prototype logits [N, K].

    A three-layer MLP, an L2-normalised bottleneck, a weight-normalised last layer of unit rows.

    Attributes:
        last_frozen: The loss does not move the last layer.
    """

    def __init__(
        self, width: int, hidden: int, bottleneck: int, prototypes: int, *, norm: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (width, hidden):
            layers += [
                nn.Linear(before, hidden),
                *([nn.BatchNorm1d(hidden)] if norm else []),
                nn.GELU(),
            ]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last = nn.Linear(bottleneck, prototypes, bias=False)
        self.last_frozen = False
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines of the bottleneck to each prototype."""
        rows = self.last.weight
        if self.last_frozen:
            # A gradient of zeros, so that the optimiser has a state for it from the first step.
            rows = rows.detach() + 0 * rows
        return cosines(self.mlp(x), rows)


@in_fp32
def cosines(x: Tensor, rows: Tensor) -> Tensor:
    """Cosines [N, K] of x [N, D] and rows [K, D].

    In float32, because a temperature of .04 makes 25 times as much of each error of rounding.
    """
    return F.linear(F.normalize(x, dim=1), F.normalize(rows, dim=1))


@in_fp32
def dino_loss(
    student_logits: tuple[Tensor, ...], targets: tuple[Tensor, ...], *, temperature: float
) -> Tensor:
    """Mean over pairs (teacher crop t, student crop s != t) of H(P_t, P_s) (equation 3).

    Args:
        student_logits: One float [N, K] a crop, the global crops first.
        targets: One distribution [N, K] a global crop.
        temperature: Of the student.

    Returns:
        A scalar; log K when both sides are uniform.
    """
    log_p = [F.log_softmax(logits / temperature, dim=1) for logits in student_logits]
    everything = torch.stack(log_p).sum(0)
    # the sum over s != t of H(P_t, P_s) is one product for each t
    sums = [-(q * (everything - log_p[t])).sum(1).mean() for t, q in enumerate(targets)]
    return torch.stack(sums).sum() / (len(targets) * (len(log_p) - 1))


@torch.no_grad()
@in_fp32
def _entropies(targets: tuple[Tensor, ...], prototypes: int) -> Logs:
    """Entropies as shares of log K.

    teacher_entropy, of one tile's target: 1 is uniform (nothing is learnt), 0 certain.
    mean_entropy, of the mean target: 0 is a collapse to one prototype.
    """
    q = torch.cat(targets)
    scale = math.log(prototypes)
    mean = q.mean(0)
    each = -(q * q.clamp_min(1e-12).log()).sum(1).mean() / scale
    joint = -(mean * mean.clamp_min(1e-12).log()).sum() / scale
    return {"teacher_entropy": each, "mean_entropy": joint}
