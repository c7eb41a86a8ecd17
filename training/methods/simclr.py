"""SimCLR: two views of a tile have similar embeddings, views of different tiles do not.

Chen et al. 2020, arXiv:2002.05709.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from training import distributed
from training.augment import ColourSettings, CropSettings
from training.bounds import Temperature, Width
from training.data.loader import TileBatch
from training.methods import Logs, Method, Plan, Views
from training.methods.parts.dense_tasks import DenseSettings, DenseTasks
from training.methods.parts.multicrop import Pair, averaged, make_views
from training.methods.parts.precision import in_fp32
from training.methods.parts.sizing import Sizing

# The paper's hidden layer is as wide as ResNet-50's output.
SIZING = Sizing(
    "simclr",
    small=(512, 128),
    large=(2048, 128),
    least_batch=32,
    least_tiles=200,
    remedy=(
        "a larger data.batch (each tile is distinguished from the others of its batch), or method"
        " byol"
    ),
)


class Settings(DenseSettings):
    """SimCLR's part of a config. None: chosen by the batch (parts/sizing.py).

    Attributes:
        crop: Crops that are compared with each other.
        local_crops: Smaller crops that are attracted to the crops of their tile and serve as no
            negatives.
        colour: Colour changes of every crop.
        temperature: tau of NT-Xent.
        hidden: Width of the projector's hidden layer.
        out: Width of the projection.
        average: Decay of the exported average of the backbone's weights.
    """

    compares_tiles: ClassVar[bool] = True
    name: Literal["simclr"] = "simclr"
    crop: Pair = CropSettings()
    local_crops: CropSettings = CropSettings(count=0, px=64, area=(0.08, 0.32))
    colour: ColourSettings = ColourSettings()
    temperature: Temperature = 0.2
    hidden: Width | None = None
    out: Width | None = None
    average: float = Field(default=0.99, ge=0, lt=1)

    def chance_loss(self, tiles: int) -> float:
        """NT-Xent of equal embeddings: log(2N - 1); with dense tasks, of equal maps too."""
        return math.log(2 * tiles - 1) + self.dense_chance_loss(tiles)


def build(settings: Settings, plan: Plan) -> Method:
    """SimCLR around a backbone."""
    return SimCLR(settings, plan)


class SimCLR(Method):
    """Backbone and projector; the exported encoder is the backbone's moving average."""

    backbone: nn.Module

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings, self.plan = settings, plan
        sizes = SIZING.sizes(plan)
        hidden, out = settings.hidden or sizes.hidden, settings.out or sizes.out
        self.backbone = plan.backbone()
        self.projector = nn.Sequential(
            nn.Linear(plan.width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )
        self.average = averaged(self.backbone, settings.average)
        self.tasks = DenseTasks(settings, self, self.backbone, settings.crop.px)
        SIZING.announce(plan, {"hidden": hidden, "out": out, "temperature": settings.temperature})

    def views(self, batch: TileBatch) -> Views:
        """The crops, then the local ones, coloured and normalised; then what dense tasks need."""
        s = self.settings
        kinds = (s.crop, s.local_crops)
        return make_views(batch, kinds, s.colour, self.plan, self.tasks.beside(batch))

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """NT-Xent over every pair of crops of a tile, mean over pairs; all processes together.

        The weighted losses of dense tasks are added.
        """
        s = self.settings
        large, count = s.crop.count, s.crop.count + s.local_crops.count
        features, maps = self.tasks.forward(self.backbone, self.backbone, views[:count], large)
        z = self.projector(features).chunk(count)
        loss, logs = contrast(z, large=large, temperature=s.temperature)
        return self.tasks.add(loss, logs, maps, views[count:])

    def schedule(self, step: int) -> dict[str, float]:
        """The temperature, which is constant."""
        return {"temperature": self.settings.temperature}

    def after_step(self, step: int) -> None:
        """Update the average."""
        self.average.update_parameters(self.backbone)

    def encoder(self) -> nn.Module:
        """The averaged backbone."""
        return self.average.module


@in_fp32
def contrast(z: tuple[Tensor, ...], *, large: int, temperature: float) -> tuple[Tensor, Logs]:
    """The mean of `nt_xent` over pairs of large crops and of `nt_xent_to` over the small ones.

    Args:
        z: Projections [n, D] of each crop, those of the large crops first, of this process.
        large: Number of large crops.
        temperature: As of `nt_xent`.

    Returns:
        A scalar over the tiles of all processes, and the mean cosine of the first two crops.
    """
    z = tuple(distributed.gather(part) for part in z)
    pairs = [
        nt_xent(z[a], z[b], temperature=temperature)
        for a in range(large)
        for b in range(a + 1, large)
    ]
    pairs += [
        nt_xent_to(local, z[a], temperature=temperature)
        for a in range(large)
        for local in z[large:]
    ]
    with torch.no_grad():
        cosine = F.cosine_similarity(z[0], z[1]).mean()
    return torch.stack(pairs).mean(), {"pair_cosine": cosine}


@in_fp32
def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (equation 1), mean over all 2N views.

    It does not change when the views are swapped or all embeddings are rotated.

    Args:
        z1: Float [N, D], projections of one view of each tile; normalised here.
        z2: Float [N, D], those of the other view.
        temperature: tau of the paper.

    Returns:
        A scalar; log(2N - 1) when all embeddings coincide, which over many steps is a collapse.
    """
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    n = len(z1)
    partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)]).to(z.device)
    return F.cross_entropy(logits, partner)


@in_fp32
def nt_xent_to(z: Tensor, fixed: Tensor, *, temperature: float) -> Tensor:
    """The same for small crops: each is to be found among the large crops of all tiles.

    No gradient flows to the large crops: a part must not define the whole.

    Args:
        z: Float [N, D], projections of the small crops; normalised here.
        fixed: Float [N, D], projections of large crops of the same tiles.
        temperature: As of `nt_xent`.

    Returns:
        A scalar; log N when all embeddings coincide.
    """
    z, fixed = F.normalize(z, dim=1), F.normalize(fixed.detach(), dim=1)
    return F.cross_entropy(z @ fixed.T / temperature, torch.arange(len(z), device=z.device))
