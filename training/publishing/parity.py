"""Whether an exported encoder gives what the checkpoint's network gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pathencoder import outputs
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform

_COSINE = 0.999  # fp16 weights give .99999 and more


@dataclass(frozen=True)
class Parity:
    """How the export agrees with the checkpoint, in fp32 on the CPU.

    Attributes:
        tiles: Tiles that were compared.
        cosine: The smallest cosine of their embeddings.
        difference: The largest difference, relative to the largest value.
    """

    tiles: int
    cosine: float
    difference: float


def check(network: nn.Module, folder: Path) -> Parity:
    """Compare an export with the network of its checkpoint.

    Args:
        network: With the weights of the checkpoint, unrounded.
        folder: Its export.

    Returns:
        How they agree.

    Raises:
        ConfigError: They do not agree, or an embedding is not finite.
    """
    encoder = load_encoder(folder, device="cpu")
    tiles = public_tiles()
    theirs = embeddings(network, encoder.spec, tiles)
    ours = np.asarray(encoder.encode(tiles, precision="fp32", progress=False), np.float64)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ConfigError(
            f"the export of {folder.name} gives NaN or infinity on real tiles: the run has"
            " diverged, or overflows in fp16. Publish an earlier step, RUN@STEP"
        )
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(((ours * theirs).sum(1) / np.maximum(norms, 1e-30)).min())
    difference = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    if cosine < _COSINE:
        raise ConfigError(
            f"the export does not give what the checkpoint gives: cosine {cosine:.5f} of the"
            f" embeddings of {len(tiles)} public tiles, at least {_COSINE} is needed. Export the"
            " run again"
        )
    return Parity(len(tiles), cosine, difference)


def embeddings(
    network: nn.Module, spec: EncoderSpec, tiles: list[NDArray[np.uint8]]
) -> NDArray[np.float64]:
    """Embeddings [N, D] of tiles by a network of a spec, in fp32 on the CPU."""
    transform = Transform(spec)
    network = network.float().cpu().eval()
    with torch.inference_mode():
        rows = [outputs.read(network, spec, transform(t)[None]).embedding[0] for t in tiles]
    return torch.stack(rows).double().numpy()


def public_tiles() -> list[NDArray[np.uint8]]:
    """Four tiles uint8 [224, 224, 3] of scikit-image's IHC picture."""
    from skimage import data

    picture = data.immunohistochemistry()
    corners = [(0, 0), (0, 288), (288, 0), (144, 144)]
    return [np.ascontiguousarray(picture[y : y + 224, x : x + 224]) for y, x in corners]
