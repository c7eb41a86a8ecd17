"""DINO: a student matches its own moving average over crops of different size (Caron et al. 2021, arXiv:2104.14294)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training import augment, distributed
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Plan, Views
from training.schedules import cosine, linear


class Settings(BaseModel):
    """DINO's part of a config."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["dino"] = "dino"
    global_crops: CropSettings = CropSettings(count=2, px=112, area=(0.32, 1.0))
    local_crops: CropSettings = CropSettings(count=4, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    hidden: int = Field(1024, ge=1)
    head_norm: bool = False  # BatchNorm inside the head: for CNNs, whose pooled features all point the same way
    bottleneck: int = Field(128, ge=1)
    prototypes: int | None = Field(None, ge=2)  # None: by the size of batch and corpus, see prototypes_for
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: tuple[float, float] = (0.04, 0.04)  # from, to over the warm-up
    teacher_warmup: float = Field(0.1, ge=0, le=1)  # share of the run
    momentum: float | None = Field(None, gt=0, lt=1)  # of the teacher at the start, 1 at the end; None: by the number of steps
    center_momentum: float = Field(0.9, ge=0, lt=1)
    freeze_last: float = Field(0.02, ge=0, le=1)  # share of the run in which the last layer does not move


def prototypes_for(batch: int, tiles: int) -> int:
    """Number of prototypes that a run can use: a power of two near 8 a sample of the batch, at most a quarter of the tiles.

    65,536 prototypes suit ImageNet at batch 1,024; with few samples most of them would never be drawn, and the teacher's
    distribution stays near uniform.
    """
    wanted = min(8 * batch, tiles / 4, 65536)
    return max(64, 2 ** round(math.log2(max(wanted, 2))))


def momentum_for(steps: int) -> float:
    """Teacher momentum whose memory is a tenth of the run: .996 for long runs, less where .996 would hardly leave the start."""
    return min(0.996, max(0.9, 1 - 10 / max(steps, 1)))


def build(settings: Settings, plan: Plan) -> nn.Module:
    """DINO around a backbone."""
    return Dino(settings, plan)


class Dino(nn.Module):
    """Student and teacher (backbone and head each) and the teacher's centre."""

    center: Tensor

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        self.prototypes = settings.prototypes or prototypes_for(plan.batch, plan.tiles)
        self.momentum = settings.momentum or momentum_for(plan.steps)
        self.student, self.teacher = (
            nn.Sequential(plan.backbone(), DinoHead(plan.width, settings.hidden, settings.bottleneck, self.prototypes, settings.head_norm))
            for _ in range(2)
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(requires_grad=False)
        self.register_buffer("center", torch.zeros(1, self.prototypes))

    def views(self, batch: TileBatch) -> Views:
        """The global crops, then the local ones, coloured and normalised."""
        s, rng, made = self.settings, self.plan.generator, []
        within = augment.fields(len(batch.tiles), s.global_crops, rng)
        for crop in (s.global_crops, s.local_crops):
            for _ in range(crop.count):
                view = augment.colours(augment.crops(batch.tiles, crop, rng, within), batch.stains, s.colour, rng)
                made.append(augment.normalise(view, self.plan.mean, self.plan.std))
        return made

    def loss(self, views: Views, step: int) -> tuple[Tensor, dict[str, float]]:
        """Cross entropy of the student's crops to the teacher's global ones, each pair of different crops."""
        n_global = self.settings.global_crops.count
        with torch.no_grad():
            teacher_logits = self.teacher(torch.cat(views[:n_global])).float()
        # Prototypes that chase a raw backbone collapse: they rest while the run is young.
        self.student[1].rests = step < self.settings.freeze_last * self.plan.steps
        student_logits = _one_forward_a_size(self.student, views)
        temperature = self._teacher_temperature(step)
        targets = F.softmax((teacher_logits - self.center) / temperature, dim=1).chunk(n_global)
        loss = dino_loss(student_logits.chunk(len(views)), targets, temperature=self.settings.student_temperature)
        if self.training:
            self._move_center(teacher_logits)
        return loss, _entropies(targets, self.prototypes)

    def after_step(self, step: int) -> None:
        """The teacher follows: teacher = m teacher + (1 - m) student, m from self.momentum to 1 along a cosine."""
        m = cosine(self.momentum, 1.0, step, self.plan.steps)
        with torch.no_grad():
            for t, s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                t.lerp_(s, 1 - m)
            for t, s in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
                t.copy_(s) if not t.is_floating_point() else t.lerp_(s, 1 - m)

    @property
    def backbone(self) -> nn.Module:
        """The student's backbone."""
        return self.student[0]

    def encoder(self) -> nn.Module:
        """The teacher's backbone."""
        backbone: nn.Module = self.teacher[0]
        return backbone

    def _teacher_temperature(self, step: int) -> float:
        start, end = self.settings.teacher_temperature
        return linear(start, end, step, int(self.settings.teacher_warmup * self.plan.steps))

    @torch.no_grad()
    def _move_center(self, teacher_logits: Tensor) -> None:
        m = self.settings.center_momentum
        self.center.mul_(m).add_(distributed.mean(teacher_logits.mean(0, keepdim=True)), alpha=1 - m)


class DinoHead(nn.Module):
    """[N, width] -> prototype logits [N, K]: three-layer MLP, L2 bottleneck, weight-normalised last layer of unit rows."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, norm: bool) -> None:  # noqa: FBT001
        super().__init__()
        layers: list[nn.Module] = []
        for before in (width, hidden):
            layers += [nn.Linear(before, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last = nn.Linear(bottleneck, prototypes, bias=False)
        self.rests = False  # whether the loss leaves the last layer alone
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines of the bottleneck to each prototype."""
        # Resting keeps a gradient of zeros, so that the optimiser's state is whole from the first step.
        rows = self.last.weight.detach() + 0 * self.last.weight if self.rests else self.last.weight
        return F.linear(F.normalize(self.mlp(x), dim=1), F.normalize(rows, dim=1))


def dino_loss(student_logits: tuple[Tensor, ...], targets: tuple[Tensor, ...], *, temperature: float) -> Tensor:
    """Mean over pairs (teacher crop t, student crop s != t) of H(P_t, P_s), Caron et al. 2021, equation 3.

    student_logits: one [N, K] a crop, the global crops first. targets: [N, K] distributions of the global crops.
    Returns a scalar; log K when both sides are uniform.
    """
    log_p = [F.log_softmax(logits.float() / temperature, dim=1) for logits in student_logits]
    pairs = [-(q * log_p[s]).sum(1).mean() for t, q in enumerate(targets) for s in range(len(log_p)) if s != t]
    return torch.stack(pairs).mean()


def _one_forward_a_size(network: nn.Module, views: Views) -> Tensor:
    """Crops of equal size go through together; the result keeps the order of views."""
    out: list[Tensor] = []
    first = 0
    while first < len(views):
        last = first
        while last < len(views) and views[last].shape[-1] == views[first].shape[-1]:
            last += 1
        out.append(network(torch.cat(views[first:last])))
        first = last
    return torch.cat(out)


@torch.no_grad()
def _entropies(targets: tuple[Tensor, ...], prototypes: int) -> dict[str, float]:
    """Entropies as shares of log K. One tile's target: 1 is uniform (nothing learnt), 0 certain. Mean target: 0 is a collapse
    onto one prototype."""
    q = torch.cat(targets)
    scale = math.log(prototypes)
    mean = q.mean(0)
    each = -(q * q.clamp_min(1e-12).log()).sum(1).mean() / scale
    joint = -(mean * mean.clamp_min(1e-12).log()).sum() / scale
    return {"teacher_entropy": float(each), "mean_entropy": float(joint)}
