"""BYOL: an online network predicts a moving average of itself on another view, without negatives.

Grill et al. 2020, arXiv:2006.07733. Sections and equations below are of that paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from training.augment import ColourSettings, CropSettings
from training.bounds import Width
from training.data.loader import TileBatch
from training.methods import Logs, Method, Plan, Views
from training.methods.parts.dense_tasks import DenseSettings, DenseTasks
from training.methods.parts.multicrop import Pair, follow, forward_by_size, make_views
from training.methods.parts.precision import in_fp32
from training.methods.parts.sizing import Sizing
from training.methods.parts.teacher import as_teacher
from training.schedules import cosine

SIZING = Sizing(
    "byol",
    small=(1024, 128),
    large=(4096, 256),
    least_batch=16,
    least_tiles=200,
    remedy="a larger data.batch (its BatchNorm needs one), or method simclr",
)


class Settings(DenseSettings):
    """BYOL's part of a config. None: chosen by batch and length of the run (parts/sizing.py).

    Attributes:
        crop: Crops that both networks see.
        local_crops: Smaller crops that the online network alone sees, as in DINO.
        colour: Colour changes of every crop.
        hidden: Width of the hidden layers of projector and predictor.
        out: Width of the projection.
        momentum: tau_base, of the target at the start; it ends at 1.
    """

    compares_tiles: ClassVar[bool] = True  # through BatchNorm
    name: Literal["byol"] = "byol"
    crop: Pair = CropSettings()
    local_crops: CropSettings = CropSettings(count=0, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    hidden: Width | None = None
    out: Width | None = None
    momentum: float | None = Field(default=None, gt=0, lt=1)


def build(settings: Settings, plan: Plan) -> Method:
    """BYOL around a backbone."""
    return Byol(settings, plan)


class Byol(Method):
    """Online f, g and q; target f' and g' (section 3.1).

    The exported encoder is the target's, the average of the online one.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        sizes = SIZING.sizes(plan)
        hidden, out = settings.hidden or sizes.hidden, settings.out or sizes.out
        self.momentum = settings.momentum or sizes.momentum
        self.online, self.target = (
            nn.Sequential(plan.backbone(), mlp(plan.width, hidden, out)) for _ in range(2)
        )
        self.predictor = mlp(out, hidden, out)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(requires_grad=False)
        self.tasks = DenseTasks(settings, self, self.backbone, settings.crop.px)
        SIZING.announce(plan, {"hidden": hidden, "out": out, "momentum": self.momentum})

    def views(self, batch: TileBatch) -> Views:
        """The crops that both networks see, then those that the online network alone sees.

        After them what dense tasks need.
        """
        s = self.settings
        kinds = (s.crop, s.local_crops)
        return make_views(batch, kinds, s.colour, self.plan, self.tasks.beside(batch))

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """Each view's prediction against the target's projection of every other large view.

        The symmetric loss of section 3.1. The weighted losses of dense tasks are added.
        """
        n, count = (
            self.settings.crop.count,
            self.settings.crop.count + self.settings.local_crops.count,
        )
        projected, maps = self.tasks.forward(self.online, self.backbone, views[:count], n)
        predictions = self.predictor(projected).chunk(count)
        with as_teacher(self.target):
            projections = forward_by_size(self.target, views[:n]).chunk(n)
        pairs = [
            byol_loss(p, z)
            for s, p in enumerate(predictions)
            for t, z in enumerate(projections)
            if s != t
        ]
        loss = torch.stack(pairs).mean()
        logs: Logs = {"pair_cosine": 1 - loss.detach() / 2}
        return self.tasks.add(loss, logs, maps, views[count:])

    def schedule(self, step: int) -> dict[str, float]:
        """The target's momentum."""
        return {"momentum": cosine(self.momentum, 1.0, step, self.plan.steps)}

    def after_step(self, step: int) -> None:
        """Move the target towards the online network (equation 1).

        xi = tau xi + (1 - tau) theta, with tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2
        (section 3.2).
        """
        follow(self.target, self.online, self.schedule(step)["momentum"])

    @property
    def backbone(self) -> nn.Module:
        """The online network's backbone."""
        return self.online[0]

    def encoder(self) -> nn.Module:
        """The target's backbone."""
        return self.target[0]


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Projector and predictor: linear, BatchNorm, ReLU, linear (section 3.3).

    Several processes share the statistics of BatchNorm (`distributed.synchronise`).
    """
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
    )


@in_fp32
def byol_loss(prediction: Tensor, projection: Tensor) -> Tensor:
    """Mean squared distance of unit vectors: |p - z|^2 = 2 - 2 cos(p, z) (equation 2).

    Args:
        prediction: Float [N, D], of any length; normalised here.
        projection: Float [N, D], the same; no gradient flows to it.

    Returns:
        A scalar in 0..4; 0 where each pair has the same direction.
    """
    p, z = F.normalize(prediction, dim=1), F.normalize(projection.detach(), dim=1)
    return (2 - 2 * (p * z).sum(1)).mean()
