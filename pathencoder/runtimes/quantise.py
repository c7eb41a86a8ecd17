"""int8: an export at fp32 to one with 8-bit weights and activations, and what that costs.

Static quantisation runs tiles through the network to find the range of every activation. ONNX
Runtime quantises a ViT so badly in this way that its ranges are found at run time instead
(dynamic): those of all images of a call together, so that such a file is run on one image at a
time. NNCF, for OpenVINO, is static for both.

Weights use half of their range (7 bits). A CPU without VNNI (AVX2, early AVX-512) adds pairs of
products of 8 bits in 16 bits, which overflow at the full range without a sign of it: the rows of a
file would depend on the machine that runs it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pathencoder.arrays import Pixels
from pathencoder.network import has_tokens
from pathencoder.runtimes.engine import Graph
from pathencoder.runtimes.engines import engine
from pathencoder.runtimes.exported import DYNAMIC
from pathencoder.runtimes.formats import quiet
from pathencoder.runtimes.openvino import without_telemetry
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform

Rows = NDArray[np.float32]
FEWEST = 24  # tiles: fewer are no sample of tissue
_HELD_OUT = 4  # one tile in so many measures the loss
_BATCH = 8
# mean centred cosine with fp32 from which int8 is not advised against: of a CNN, of a ViT
ACCEPTABLE = {False: 0.97, True: 0.99}


def quantise(
    source: Path,
    target: Path,
    form: str,
    network: nn.Module,
    spec: EncoderSpec,
    tiles: Sequence[Pixels],
) -> dict[str, Any]:
    """Write an export at int8.

    Args:
        source: The export at fp32.
        target: The file to write.
        form: "onnx" or "openvino".
        network: Of the encoder.
        spec: Its description.
        tiles: uint8 [S, S, 3] each, at least `FEWEST`.

    Returns:
        How it was calibrated, and the loss on the tiles that were held out: mean and smallest
        cosine of each embedding with that at fp32, after the mean embedding was subtracted; and
        the mean cosine from which it is acceptable.
    """
    images = _normalised(spec, tiles)
    held_out = images[::_HELD_OUT]
    seen = np.delete(images, np.s_[::_HELD_OUT], axis=0)
    tokens = has_tokens(network)
    with quiet():
        if form == "openvino":
            _by_nncf(source, target, seen, tokens=tokens)
        elif tokens:
            _dynamic(source, target)
        else:
            _static(source, target, seen)
    method = _METHODS[form, tokens]
    at_once = 1 if method.startswith(DYNAMIC) else _BATCH
    exact = _run(engine(form).open(source, 1), held_out, _BATCH)
    rounded = _run(engine(form).open(target, 1), held_out, at_once)
    cosines = centred_cosines(rounded, exact)
    return {
        "method": method,
        "tiles": len(seen),
        "held_out_tiles": len(held_out),
        "mean_centred_cosine": round(float(cosines.mean()), 4),
        "smallest_centred_cosine": round(float(cosines.min()), 4),
        "acceptable_from": ACCEPTABLE[tokens],
    }


_METHODS = {
    ("onnx", False): "static, ONNX Runtime, per channel, weights of 7 bits",
    ("onnx", True): f"{DYNAMIC}, ONNX Runtime, per channel, weights of 7 bits",
    ("openvino", False): "static, NNCF, weights of 7 bits",
    ("openvino", True): "static, NNCF, as a transformer, weights of 7 bits",
}


def centred_cosines(found: Rows, expected: Rows) -> NDArray[np.float64]:
    """Cosine of each row with the expected one, after the mean of the expected is subtracted.

    Embeddings of tissue have a large mean in common, which hides differences from a plain cosine.
    """
    centre = expected.astype(np.float64).mean(axis=0)
    a, b = found - centre, expected - centre
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[np.float64] = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines


def _normalised(spec: EncoderSpec, tiles: Sequence[Pixels]) -> Rows:
    batch: Rows = Transform(spec).normalise(np.stack(tiles)).contiguous().numpy()
    return batch


def _run(graph: Graph, images: Rows, at_once: int) -> Rows:
    parts = [graph(images[i : i + at_once]) for i in range(0, len(images), at_once)]
    return np.concatenate(parts)


def _static(source: Path, target: Path, images: Rows) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(np.array_split(images, max(len(images) // _BATCH, 1)))

        def get_next(self) -> dict[str, Rows] | None:
            found = next(self.left, None)
            return None if found is None else {"image": found}

    quantization.quantize_static(
        source,
        target,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        reduce_range=True,
    )


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime import quantization

    quantization.quantize_dynamic(
        source,
        target,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
        # the convolution that makes the tokens is slower in int8, the products of attention are
        # faster
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": False},
    )


def _by_nncf(source: Path, target: Path, images: Rows, *, tokens: bool) -> None:
    with without_telemetry():
        import nncf
        import openvino

    nncf.set_log_level(logging.ERROR)

    model = openvino.Core().read_model(source)
    kind = nncf.ModelType.TRANSFORMER if tokens else None
    made = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images]),
        model_type=kind,
        subset_size=len(images),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE
        ),
    )
    openvino.save_model(made, target, compress_to_fp16=False)
