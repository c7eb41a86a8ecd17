"""Losses that spread unit vectors over the sphere, against collapse of the embedding.

Both are computed over the rows of all processes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from training import distributed
from training.bounds import Section
from training.methods.parts.precision import in_fp32


class SpreadSettings(Section):
    """The regulariser and its weight in the loss.

    Attributes:
        name: Which regulariser.
        weight: Of its term in the loss.
        concentration: Of the kernel of `kde`.
    """

    name: Literal["koleo", "kde"] = "kde"
    weight: float = Field(default=0.05, gt=0, le=1000)
    concentration: float = Field(default=5.0, gt=0, le=1000)


@in_fp32
def spread(settings: SpreadSettings, crops: tuple[Tensor, ...]) -> Tensor:
    """The regulariser, unweighted: the mean of its values for each crop.

    Crops are not mixed, because two crops of a tile should be near each other.

    Args:
        settings: Which regulariser.
        crops: Embeddings of this process, float [n, D] for each crop.

    Returns:
        A scalar.
    """
    gathered = [distributed.gather(rows) for rows in crops]
    if settings.name == "koleo":
        return torch.stack([koleo(x) for x in gathered]).mean()
    return torch.stack([kde(x, concentration=settings.concentration) for x in gathered]).mean()


@in_fp32
def koleo(x: Tensor) -> Tensor:
    """Kozachenko-Leonenko: minus the mean log distance of each row to its nearest neighbour.

    Sablayrolles et al. 2019, arXiv:1806.03198, equation 4; used by DINOv2.

    Args:
        x: Float [N, D]; normalised here.

    Returns:
        A scalar that falls as rows move apart; rows that coincide count log 1e8 each.
    """
    unit = F.normalize(x, dim=1)
    with torch.no_grad():
        near = (unit @ unit.T).fill_diagonal_(-2.0).argmax(1)
    distance: Tensor = (unit - unit[near]).norm(dim=1)
    return -(distance + 1e-8).log().mean()


@in_fp32
def kde(x: Tensor, *, concentration: float) -> Tensor:
    """Mean log density of the rows under a von Mises-Fisher kernel estimate from the other rows.

    mean_i log mean_{j != i} exp(concentration (x_i . x_j - 1)): Virchow2, Zimmermann et al. 2024,
    arXiv:2408.00738. Unlike `koleo` it has no pole.

    Args:
        x: Float [N, D]; normalised here.
        concentration: Of the kernel.

    Returns:
        A scalar: 0, its largest value, when all rows coincide; -concentration when they are
        orthogonal.
    """
    unit = F.normalize(x, dim=1)
    kernel = concentration * (unit @ unit.T - 1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (
        torch.logsumexp(kernel.masked_fill(own, float("-inf")), dim=1)
        - torch.log(kernel.new_tensor(len(unit) - 1.0))
    ).mean()
