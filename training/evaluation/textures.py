"""Texture statistics of a CNN's maps, as further numbers beside its embedding.

They are not readouts of the package: `training.evaluate readings` compares them with the readout
of an encoder, for a choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder.encoder import Encoder
from pathencoder.images import survey
from pathencoder.network import channels_first, walk
from pathencoder.pooling import StageRule
from pathencoder.runtime import Runner
from pathencoder.stream import results, with_scales

Floats = NDArray[np.float32]
CHANNELS = 32  # of a map, after projection: 528 covariances


@dataclass(frozen=True)
class Texture:
    """A statistic of the maps.

    Attributes:
        name: In tables.
        stages: Paths of the modules whose maps it reads.
        of: The statistic of a map [N, C, h, w] of a module: [N, D].
    """

    name: str
    stages: tuple[str, ...]
    of: Callable[[Tensor], Tensor]


def cubic_mean(maps: Tensor) -> Tensor:
    """The generalised mean with p = 3 of each channel, [N, C, h, w] -> [N, C].

    Radenovic et al. 2018, for maps that may be negative: the cube root, with its sign, of the mean
    of the cubes.
    """
    mean = maps.pow(3).mean(dim=(2, 3))
    return mean.sign() * mean.abs().pow(1 / 3)


def covariance(maps: Tensor, projection: Tensor) -> Tensor:
    """Covariances of projected channels over the map, [N, C, h, w] -> [N, k (k + 1) / 2].

    Bilinear pooling (Lin et al. 2015): signed square root, then length 1.

    Args:
        maps: The maps.
        projection: [k, C].
    """
    flat = torch.einsum("kc,ncp->nkp", projection.to(maps), maps.flatten(2))
    flat = flat - flat.mean(dim=2, keepdim=True)
    found = flat @ flat.transpose(1, 2) / flat.shape[2]
    rows, columns = torch.triu_indices(len(projection), len(projection))
    values = found[:, rows, columns]
    return nn.functional.normalize(values.sign() * values.abs().sqrt(), dim=1)


def strongest_channels(module: nn.Module) -> Tensor:
    """The directions of a module's output in which its last convolution is strongest, [k, C].

    Principal axes of its weights: nothing is learnt from images.
    """
    last = [m for m in module.modules() if isinstance(m, nn.Conv2d)][-1]
    axes: Tensor = torch.linalg.svd(last.weight.detach().flatten(1), full_matrices=False).U
    return axes[:, :CHANNELS].T.contiguous()


def textures_of(encoder: Encoder, rule: StageRule) -> list[Texture]:
    """The statistics that are compared: of the stages that the encoder reads."""
    found = [Texture("cubic mean", rule.stages, cubic_mean)]
    for stage in rule.stages:
        projection = strongest_channels(encoder.network.get_submodule(stage))
        found.append(Texture(f"covariance of {stage}", (stage,), _covariance_of(projection)))
    return found


def _covariance_of(projection: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda maps: covariance(maps, projection)


def texture_rows(encoder: Encoder, textures: list[Texture], files: list[Path]) -> dict[str, Floats]:
    """The statistics of image files, from one pass.

    Args:
        encoder: The encoder.
        textures: The statistics.
        files: The images, which are resized whole.

    Returns:
        float32 [N, D] by name.
    """
    wanted = {stage for texture in textures for stage in texture.stages}
    widths: dict[str, int] = {}

    def readout(x: Tensor) -> Tensor:
        kept: dict[str, Tensor] = {}
        for path, maps in walk(encoder.network, x):
            if path in wanted:
                kept[path] = channels_first(encoder.network, maps)
            if kept.keys() == wanted:
                break
        parts = [torch.cat([t.of(kept[s]) for s in t.stages], dim=1) for t in textures]
        widths.update({t.name: part.shape[1] for t, part in zip(textures, parts, strict=True)})
        return torch.cat(parts, dim=1)

    runner = Runner(encoder.network, readout, encoder.transform.normalise)
    items, total = survey([str(file) for file in files])
    found = results(with_scales(items, None, total), encoder.transform, runner, group=32, workers=1)
    rows = []
    for result in found:
        if result.error is not None:
            raise result.error
        rows.append(result.row)
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(np.stack(rows), ends, axis=1), strict=True))
