"""SimCLR: two views of a tile agree, views of other tiles do not (Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import distributed
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Logs, Plan, Views
from training.methods.parts.multicrop import Pair, forward_by_size, make_views
from training.methods.parts.sizing import announce, sizes_for


class Settings(BaseModel):
    """SimCLR's part of a config. None: by the batch, see sizing.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["simclr"] = "simclr"
    crop: Pair = CropSettings()
    # drawn to the crops of their tile, and no negatives
    local_crops: CropSettings = CropSettings(count=0, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    temperature: float = Field(0.2, gt=0)
    hidden: int | None = Field(None, ge=1)
    out: int | None = Field(None, ge=1)
    # decay of the exported average of the backbone's weights
    average: float = Field(0.99, ge=0, lt=1)


def build(settings: Settings, plan: Plan) -> nn.Module:
    """SimCLR around a backbone."""
    return SimCLR(settings, plan)


class SimCLR(nn.Module):
    """Backbone and projector; the exported encoder is the backbone's moving average."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        run = {"batch": plan.batch, "tiles": plan.tiles, "steps": plan.steps}
        sizes = sizes_for("simclr", **run)
        hidden, out = settings.hidden or sizes.hidden, settings.out or sizes.out
        self.backbone = plan.backbone()
        self.projector = nn.Sequential(
            nn.Linear(plan.width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )
        self.average = AveragedModel(
            self.backbone, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True
        )
        self.average.requires_grad_(requires_grad=False)
        announce(
            "simclr",
            **run,
            values={"hidden": hidden, "out": out, "temperature": settings.temperature},
        )

    def views(self, batch: TileBatch) -> Views:
        """The crops, then the local ones, coloured and normalised."""
        return make_views(
            batch, (self.settings.crop, self.settings.local_crops), self.settings.colour, self.plan
        )

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """NT-Xent over every pair of crops of a tile, mean over pairs; all processes together."""
        n = self.settings.crop.count
        z = self.projector(forward_by_size(self.backbone, views)).chunk(len(views))
        z = tuple(distributed.gather(part) for part in z)
        pairs = [
            nt_xent(z[a], z[b], temperature=self.settings.temperature)
            for a in range(n)
            for b in range(a + 1, n)
        ]
        pairs += [
            nt_xent_to(local, z[a], temperature=self.settings.temperature)
            for a in range(n)
            for local in z[n:]
        ]
        with torch.no_grad():
            agree = F.cosine_similarity(z[0], z[1]).mean()
        return torch.stack(pairs).mean(), {"pair_cosine": agree}

    def after_step(self, step: int) -> None:
        """Move the average."""
        self.average.update_parameters(self.backbone)

    def encoder(self) -> nn.Module:
        """The averaged backbone."""
        return self.average.module


def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy, Chen et al. 2020, equation 1, averaged over all 2N views.

    z1, z2: [N, D] projections of two views, normalised here. Returns a scalar. Swapping the views or turning all embeddings
    alike changes nothing; log(2N - 1) when all embeddings coincide: that value for long is a collapse.
    """
    z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    n = len(z1)
    partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)]).to(z.device)
    return F.cross_entropy(logits, partner)


def nt_xent_to(z: Tensor, fixed: Tensor, *, temperature: float) -> Tensor:
    """The same for small crops: each row of z [N, D] is to be found among the rows of `fixed` [N, D], views of the same tiles.

    Returns a scalar; log N when all embeddings coincide. No gradient flows to `fixed`: a part must not define the whole.
    """
    z, fixed = F.normalize(z.float(), dim=1), F.normalize(fixed.detach().float(), dim=1)
    return F.cross_entropy(z @ fixed.T / temperature, torch.arange(len(z), device=z.device))
