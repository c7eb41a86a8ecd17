"""SimCLR: two views of a tile agree, views of other tiles do not (Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import augment, distributed
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Plan, Views


class Settings(BaseModel):
    """SimCLR's part of a config."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["simclr"] = "simclr"
    crop: CropSettings = CropSettings()
    colour: ColourSettings = ColourSettings()
    temperature: float = Field(0.2, gt=0)
    hidden: int = Field(512, ge=1)
    out: int = Field(128, ge=1)
    average: float = Field(0.99, ge=0, lt=1)  # decay of the exported average of the backbone's weights


def build(settings: Settings, plan: Plan) -> nn.Module:
    """SimCLR around a backbone."""
    return SimCLR(settings, plan)


class SimCLR(nn.Module):
    """Backbone and projector; the exported encoder is the backbone's moving average."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        self.backbone = plan.backbone()
        self.projector = nn.Sequential(
            nn.Linear(plan.width, settings.hidden, bias=False),
            nn.BatchNorm1d(settings.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(settings.hidden, settings.out),
        )
        self.average = AveragedModel(self.backbone, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True)
        self.average.requires_grad_(requires_grad=False)

    def views(self, batch: TileBatch) -> Views:
        """settings.crop.count crops of each tile, coloured and normalised."""
        s, rng = self.settings, self.plan.generator
        within = augment.fields(len(batch.tiles), s.crop, rng)
        made = (augment.colours(augment.crops(batch.tiles, s.crop, rng, within), batch.stains, s.colour, rng) for _ in range(s.crop.count))
        return [augment.normalise(v, self.plan.mean, self.plan.std) for v in made]

    def loss(self, views: Views, step: int) -> tuple[Tensor, dict[str, float]]:
        """NT-Xent over the first two views' projections, all processes together."""
        z = self.projector(self.backbone(torch.cat(views)))
        z1, z2 = (distributed.gather(part) for part in z.chunk(2))
        loss = nt_xent(z1, z2, temperature=self.settings.temperature)
        with torch.no_grad():
            agree = F.cosine_similarity(z1, z2).mean()
        return loss, {"pair_cosine": float(agree)}

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
