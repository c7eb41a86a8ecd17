"""BYOL: an online network predicts what a moving average of itself says of another view.

No negatives (Grill et al. 2020, arXiv:2006.07733). Sections and equations below are that paper's.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Logs, Plan, Views
from training.methods.parts.multicrop import Pair, follow, forward_by_size, make_views
from training.methods.parts.sizing import announce, sizes_for
from training.schedules import cosine


class Settings(BaseModel):
    """BYOL's part of a config. None: by batch and length of the run, see sizing.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["byol"] = "byol"
    crop: Pair = CropSettings()
    # seen by the online network alone, as DINO's
    local_crops: CropSettings = CropSettings(count=0, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    hidden: int | None = Field(None, ge=1)
    out: int | None = Field(None, ge=1)
    # tau_base: of the target at the start, 1 at the end
    momentum: float | None = Field(None, gt=0, lt=1)


def build(settings: Settings, plan: Plan) -> nn.Module:
    """BYOL around a backbone."""
    return Byol(settings, plan)


class Byol(nn.Module):
    """Online f, g and q; target f' and g' (section 3.1).

    The exported encoder is the target's, the average of the online one.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        run = {"batch": plan.batch, "tiles": plan.tiles, "steps": plan.steps}
        sizes = sizes_for("byol", **run)
        hidden, out = settings.hidden or sizes.hidden, settings.out or sizes.out
        self.momentum = settings.momentum or sizes.momentum
        self.online, self.target = (
            nn.Sequential(plan.backbone(), mlp(plan.width, hidden, out)) for _ in range(2)
        )
        self.predictor = mlp(out, hidden, out)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(requires_grad=False)
        announce("byol", **run, values={"hidden": hidden, "out": out, "momentum": self.momentum})

    def views(self, batch: TileBatch) -> Views:
        """The crops that both networks see, then those that the online network sees alone."""
        return make_views(
            batch, (self.settings.crop, self.settings.local_crops), self.settings.colour, self.plan
        )

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """Each view's prediction against the target's projection of each other view.

        The symmetric loss of section 3.1.
        """
        n = self.settings.crop.count
        predictions = self.predictor(forward_by_size(self.online, views)).chunk(len(views))
        with torch.no_grad():
            projections = forward_by_size(self.target, views[:n]).chunk(n)
        pairs = [
            byol_loss(p, z)
            for s, p in enumerate(predictions)
            for t, z in enumerate(projections)
            if s != t
        ]
        loss = torch.stack(pairs).mean()
        return loss, {"pair_cosine": 1 - loss.detach() / 2}

    def after_step(self, step: int) -> None:
        """The target follows: xi = tau xi + (1 - tau) theta, tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 (equation 1, section 3.2)."""
        follow(self.target, self.online, cosine(self.momentum, 1.0, step, self.plan.steps))

    @property
    def backbone(self) -> nn.Module:
        """The online network's backbone."""
        return self.online[0]

    def encoder(self) -> nn.Module:
        """The target's backbone."""
        backbone: nn.Module = self.target[0]
        return backbone


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Projector and predictor: linear, BatchNorm, ReLU, linear (section 3.3).

    The BatchNorm is over the joint batch of all processes.
    """
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
    )


def byol_loss(prediction: Tensor, projection: Tensor) -> Tensor:
    """Mean over rows of |p - z|^2 with both of [N, D] brought to length 1, which is 2 - 2 cos(p, z) (equation 2). In 0..4: 0 when
    they point the same way. No gradient flows to the projection."""
    p, z = F.normalize(prediction.float(), dim=1), F.normalize(projection.detach().float(), dim=1)
    return (2 - 2 * (p * z).sum(1)).mean()
