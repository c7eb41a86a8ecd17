"""Compare an export with torch: numbers of images, and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pathencoder.errors import ConfigError
from pathencoder.runtimes.engines import engine
from pathencoder.runtimes.formats import SMALLEST, quiet

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

Rows = NDArray[np.float32]
TOLERANCE = 1e-4  # of the largest value of a row
_BATCHES = (1, 2, 7, 16)
_OTHER_SIZES = ((32, 0), (-3, 1), (77, 96))  # pixels more than the input size
_EXAMPLE = Path(__file__).parent.parent / "example.jpg"


def check(encoder: Encoder, file: Path, form: str, *, any_size: bool) -> dict[str, Any]:
    """Compare the embeddings of an export with those of the network in torch.

    Args:
        encoder: The encoder.
        file: Its export at fp32.
        form: Its format.
        any_size: Whether it takes images of other sizes.

    Returns:
        What was compared, and the largest difference, as a share of the largest value of its row.

    Raises:
        ConfigError: They differ by more than `TOLERANCE`.
    """
    run = opened(file, form)
    size = encoder.spec.input_size
    shapes = [(count, size, size) for count in _BATCHES]
    if any_size:
        shapes += [
            (2, max(size + high, SMALLEST), max(size + wide, SMALLEST))
            for high, wide in _OTHER_SIZES
        ]
    worst = 0.0
    for shape in shapes:
        x = _images(encoder, *shape)
        with torch.inference_mode():
            expected = encoder(x).embedding.numpy()
        worst = max(worst, difference(run(x), expected))
        if not worst <= TOLERANCE:
            raise ConfigError(
                f"the export of {encoder.spec.name} to {form} computes other embeddings than torch:"
                f" they differ by {worst:.1e} of the largest value for {shape[0]} images of"
                f" {shape[1]} x {shape[2]} px. It is not written"
            )
    return {
        "images": [shape[0] for shape in shapes],
        "sizes": [list(shape[1:]) for shape in shapes],
        "largest_relative_difference": float(f"{worst:.2g}"),
        "tolerance": TOLERANCE,
    }


def difference(found: Rows, expected: Rows) -> float:
    """The largest difference of two tables of rows, as a share of the largest value of its row."""
    if found.shape != expected.shape:
        return float("inf")
    largest = np.maximum(np.abs(expected).max(axis=1), 1e-12)
    return float((np.abs(found - expected).max(axis=1) / largest).max())


def opened(file: Path, form: str) -> Callable[[Tensor], Rows]:
    """A function that runs an export on normalised float32 [N, 3, H, W]."""
    if form in ("onnx", "openvino"):
        graph = engine(form).open(file, torch.get_num_threads())
        return lambda x: graph(x.numpy())
    with quiet():
        script = form == "torchscript"
        module: Any = torch.jit.load(file) if script else torch.export.load(file).module()

    def run(x: Tensor) -> Rows:
        with quiet(), torch.inference_mode():
            rows: Rows = module(x).numpy()
        return rows

    return run


def _images(encoder: Encoder, count: int, height: int, width: int) -> Tensor:
    """Normalised tissue and noise of that size."""
    with Image.open(_EXAMPLE) as opened_example:
        tissue = np.asarray(opened_example.convert("RGB").resize((width + count, height)))
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    images = [tissue[:, i : i + width] if i % 2 == 0 else noise for i in range(count)]
    return encoder.transform.normalise(np.stack(images)).contiguous()
