"""Check that an encoder reproduces the embedding that was published with it.

The bar is the same with every supported version of torch, timm and Pillow, with or without extras,
and for any size of batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained import folder

# smallest cosine by dtype; half precision is less exact
_COSINE = {torch.float32: 0.9999, torch.float64: 0.9999}
_COSINE_HALF = 0.999
# copies of the tile and images of a batch: one full batch and a rest of one
_COPIES, _BATCH = 4, 3


@dataclass(frozen=True)
class Verification:
    """The comparison of an encoder's embeddings of its reference tile with the published one.

    Attributes:
        name: Of the encoder.
        cosine: Cosine similarity of the two, the smallest over batches of 1 and of 3.
        max_abs: Largest absolute difference of the D values, likewise.
        limit: Smallest cosine that passes.
    """

    name: str
    cosine: float
    max_abs: float
    limit: float

    @property
    def ok(self) -> bool:
        """Whether the cosine is at least `limit`."""
        return self.cosine >= self.limit


def verify(encoder: Encoder) -> Verification:
    """Embed the encoder's reference tile, by `encode` with its defaults, and compare.

    The tile is embedded by itself and in batches of several images.

    Args:
        encoder: The encoder.

    Returns:
        The comparison.

    Raises:
        ConfigError: The encoder has no reference, or one of another size.
    """
    reference = folder.read_reference(encoder.folder) if encoder.folder is not None else None
    if reference is None:
        raise ConfigError(
            f"{encoder.spec.name} has no {folder.REFERENCE}: there is nothing to compare its"
            " embeddings with. `save_pretrained` writes one for later"
        )
    if reference.embedding.shape != (encoder.spec.dim,):
        raise ConfigError(
            f"{encoder.spec.name}: its {folder.REFERENCE} has {reference.embedding.size} values"
            f" instead of {encoder.spec.dim}"
        )
    rows = np.concatenate(
        [
            encoder.encode(reference.tile, progress=False),
            encoder.encode([reference.tile] * _COPIES, batch_size=_BATCH, progress=False),
        ]
    ).astype(np.float64)
    expected = reference.embedding.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected)
    cosine = float((rows @ expected / np.maximum(norms, 1e-12)).min())
    limit = _COSINE.get(encoder.dtype, _COSINE_HALF)
    return Verification(encoder.spec.name, cosine, float(np.abs(rows - expected).max()), limit)
