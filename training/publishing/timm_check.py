"""What timm's own loader gives for an encoder's folder, beside the embedding of the card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pathencoder import compat
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained import timm_form, weight_files
from pathencoder.pretrained.folder import REFERENCE, Reference, read_reference, read_spec

_SAME = 1e-3  # of the embedding's largest value: fp32 on another machine


@dataclass(frozen=True)
class TimmOutput:
    """The output of timm's loader on the reference tile.

    Attributes:
        shape: Of one tile's output.
        same: Whether it is the embedding.
        is_mean: Whether it is `encoder.encode(..., output="mean")`.
        difference: The largest difference to the embedding; None where the shapes differ.
        tolerance: The difference that another machine may show.
        error: Why timm cannot build the network; "" where it can.
    """

    shape: list[int]
    same: bool
    is_mean: bool
    difference: float | None
    tolerance: float
    error: str = ""


def check(folder: Path) -> tuple[TimmOutput, NDArray[np.float32] | None]:
    """Load an encoder's folder by timm, and compare its output with the embedding.

    Args:
        folder: An encoder's folder with a reference.

    Returns:
        How the output relates to the embedding, and the output; None where timm cannot build the
        network.

    Raises:
        ConfigError: There is no reference, or timm fails for a reason other than layer classes.
    """
    reference = reference_of(folder)
    try:
        output = timm_output(folder, reference.tile)
    except Exception as error:
        if not timm_form.needs_classes(read_spec(folder)):
            raise ConfigError(
                f"timm cannot load {folder}: {error}. Export the run again"
            ) from error
        names = "its arguments name layer classes, which a config.json cannot hold"
        failed = TimmOutput(
            [], same=False, is_mean=False, difference=None, tolerance=0.0, error=names
        )
        return failed, None
    scale = float(np.abs(output).max())
    difference = _difference(output, reference.embedding)
    found = TimmOutput(
        shape=list(output.shape),
        same=difference is not None and difference <= _SAME * scale,
        is_mean=_is_mean(folder, reference, output, _SAME * scale),
        difference=difference,
        tolerance=float(f"{_SAME * scale:.1g}"),
    )
    return found, output


def reference_of(folder: Path) -> Reference:
    """The reference of an encoder's folder.

    Raises:
        ConfigError: There is none.
    """
    reference = read_reference(folder)
    if reference is None:
        raise ConfigError(f"{folder} has no {REFERENCE}: export the run again")
    return reference


def add_to_reference(folder: Path, output: NDArray[np.float32] | None) -> None:
    """Add timm's output to the reference file of an encoder's folder, if there is one."""
    reference = read_reference(folder)
    if output is None or reference is None:
        return
    arrays = {
        "tile": reference.tile,
        "embedding": reference.embedding,
        "timm_output": np.ascontiguousarray(output, dtype=np.float32),
    }
    tensors = {name: torch.tensor(value) for name, value in arrays.items()}
    weight_files.save(tensors, folder / REFERENCE)


def timm_output(folder: Path, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The output of timm's network and transform for one tile uint8 [H, W, 3], fp32 on the CPU."""
    timm: Any = compat.import_timm()
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        output: NDArray[np.float32] = model(transform(Image.fromarray(tile))[None])[0].numpy()
    return output


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float | None:
    return float(np.abs(one - other).max()) if one.shape == other.shape else None


def _is_mean(folder: Path, reference: Reference, output: NDArray[np.float32], most: float) -> bool:
    encoder = load_encoder(folder, device="cpu")
    mean = encoder.encode([reference.tile], output="mean", precision="fp32", progress=False)[0]
    found = _difference(output, np.asarray(mean))
    return found is not None and found <= most
