"""A network as a folder that `load_encoder` reads, with fp16 weights and a reference tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder import outputs
from pathencoder.pretrained.folder import write_folder
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform


def write_encoder(
    network: nn.Module, spec: EncoderSpec, folder: Path, *, licence: str | None = None
) -> Path:
    """Write the folder of a network.

    Args:
        network: With the keys of its architecture in timm.
        spec: What it is.
        folder: Where to write.
        licence: The text of the weights' licence, for the file LICENSE; None: no such file.

    Returns:
        The folder.
    """
    state = half_precision(network.state_dict())
    tile = reference_tile()
    with torch.no_grad():
        check = networks.create(spec)
        check.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
        )
        embedding = outputs.read(check.eval(), spec, Transform(spec)(tile)[None]).embedding[0]
    write_folder(
        folder,
        spec,
        state,
        reference_tile=tile,
        reference_embedding=embedding.float().numpy(),
        licence=licence,
    )
    return folder


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in fp16 on the CPU.

    BatchNorm's running statistics stay fp32, since a variance below 6e-8 would become zero.
    """
    keep = ("running_mean", "running_var", "num_batches_tracked")
    return {k: (v if k.endswith(keep) else v.half()).cpu().contiguous() for k, v in state.items()}


def reference_tile() -> np.ndarray:
    """Uint8 [224, 224, 3]: the middle of scikit-image's IHC picture, a real and public tile."""
    from skimage import data

    picture = data.immunohistochemistry()
    top, left = (picture.shape[0] - 224) // 2, (picture.shape[1] - 224) // 2
    tile: np.ndarray = np.ascontiguousarray(picture[top : top + 224, left : left + 224])
    return tile
