"""The weights of a quantised TFLite MobileNetV2 as float weights in timm's keys.

A quantised tensor has one scale and one zero point: value = scale (q - zero point). Batch
normalisation is folded into the convolutions of the source; in timm's keys it is the identity plus
the convolution's bias. TensorFlow's class 0, "background", is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from pathencoder import network as networks
from pathencoder.errors import IncompatibleWeights, MissingExtra

ARCHITECTURE, ARGS = "mobilenetv2_100", {"pad_type": "same"}
# The description in the header of the published file, whose sha256 depends on it.
DESCRIPTION = {
    "arch": "timm mobilenetv2_100, pad_type=same",
    "preproc": "RGB, 224, mean 0.5 std 0.5",
    "licence": "Apache-2.0",
    "source": "google-coral/test_data@104342d2d347 mobilenet_v2_1.0_224_quant.tflite",
}
_EPS = 1e-5  # of timm's BatchNorm
# Of timm's blocks, in the order in which a block runs them: (convolution, its BatchNorm).
_FIRST_BLOCK = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
_BLOCK = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))


def mobilenet_v2(file: Path) -> dict[str, Tensor]:
    """The weights of a file by timm's keys, fp16.

    Args:
        file: A quantised MobileNetV2 of TFLite; its convolutions stand in the order of execution.

    Returns:
        The state of timm's mobilenetv2_100 with pad_type=same and 1,000 classes.

    Raises:
        MissingExtra: The package `tflite` is not installed.
        IncompatibleWeights: The file is not such a network.
    """
    found = list(_convolutions(file))
    layers = _layers()
    if len(found) != len(layers):
        raise IncompatibleWeights(
            f"{file}: {len(found)} convolutions, MobileNetV2 has {len(layers)}. Give the file that"
            " --help names"
        )
    state: dict[str, Tensor] = {}
    for (convolution, norm), (weight, bias) in zip(layers, found, strict=True):
        if norm is None:
            state |= {f"{convolution}.weight": weight[1:, :, 0, 0], f"{convolution}.bias": bias[1:]}
        else:
            state |= {f"{convolution}.weight": weight, **_identity(norm, bias)}
    _refuse_other_shapes(state, file)
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def serialised(state: dict[str, Tensor]) -> bytes:
    """A safetensors file with DESCRIPTION in its header, the same bytes at every call.

    safetensors itself writes the entries of a description in any order.
    """
    plain: bytes = save(state)
    length = int.from_bytes(plain[:8], "little")
    header = plain[8 : 8 + length].rstrip(b" ")
    described = json.dumps({"__metadata__": DESCRIPTION}, separators=(",", ":")).encode()
    header = described[:-1] + b"," + header[1:]
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + plain[8 + length :]


def _identity(norm: str, bias: Tensor) -> dict[str, Tensor]:
    """A BatchNorm that adds a bias and changes nothing else."""
    one = torch.ones_like(bias)
    return {
        f"{norm}.weight": one,
        f"{norm}.bias": bias,
        f"{norm}.running_mean": torch.zeros_like(bias),
        f"{norm}.running_var": one - _EPS,
        f"{norm}.num_batches_tracked": torch.tensor(0),
    }


def _layers() -> list[tuple[str, str | None]]:
    """(convolution, its BatchNorm) in the order of execution; the classifier has none."""
    found: list[tuple[str, str | None]] = [("conv_stem", "bn1")]
    for stage, blocks in enumerate(_network().blocks):
        for block in range(len(blocks)):
            names = _FIRST_BLOCK if stage == 0 else _BLOCK
            found += [
                (f"blocks.{stage}.{block}.{c}", f"blocks.{stage}.{block}.{n}") for c, n in names
            ]
    return [*found, ("conv_head", "bn2"), ("classifier", None)]


def _network() -> Any:
    with torch.device("meta"):
        return networks.build(ARCHITECTURE, {**ARGS, "num_classes": 1000})


def _refuse_other_shapes(state: dict[str, Tensor], file: Path) -> None:
    own = {k: tuple(v.shape) for k, v in _network().state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in state.items()}
    if wrong := sorted(k for k in own.keys() | theirs.keys() if own.get(k) != theirs.get(k)):
        raise IncompatibleWeights(
            f"{file}: {len(wrong)} tensors do not fit {ARCHITECTURE}, such as {wrong[:3]}. Give the"
            " file that --help names"
        )


def _convolutions(file: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight float32 [out, in, h, w] and bias float32 [out] of each convolution, in order."""
    try:
        # only for this conversion; it has no annotations
        import tflite  # type: ignore[import-not-found, import-untyped]
    except ImportError as error:
        raise MissingExtra("reading a .tflite file needs: pip install tflite") from error
    try:
        model = tflite.Model.GetRootAs(file.read_bytes(), 0)
        graph = model.Subgraphs(0)
        operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
        kinds = [model.OperatorCodes(o.OpcodeIndex()).DeprecatedBuiltinCode() for o in operators]
    # bytes that are not a flatbuffer give almost any error
    except Exception as error:
        raise IncompatibleWeights(f"{file} is not a TFLite network: {error}") from error
    for operator, kind in zip(operators, kinds, strict=True):
        if kind in (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D):
            weight, bias = (_dequantised(model, graph.Tensors(operator.Inputs(i))) for i in (1, 2))
            depthwise = kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D
            order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
            yield torch.from_numpy(weight).permute(order).contiguous(), torch.from_numpy(bias)


def _dequantised(model: Any, tensor: Any) -> npt.NDArray[np.float32]:
    """The float32 values of a tensor that is stored as uint8 or int32 with one scale."""
    stored = model.Buffers(tensor.Buffer()).DataAsNumpy()
    about = tensor.Quantization()
    kinds = {2: np.dtype("<i4"), 3: np.dtype(np.uint8)}  # TensorType.INT32 and UINT8
    if tensor.Type() not in kinds or about is None or about.ScaleLength() != 1:
        raise IncompatibleWeights(
            f"the tensor {tensor.Name().decode()!r} is not quantised with one scale: give the file"
            " that --help names"
        )
    zero = about.ZeroPoint(0) if about.ZeroPointLength() else 0
    values = stored.view(kinds[tensor.Type()]).reshape(tensor.ShapeAsNumpy()).astype(np.int64)
    scaled: npt.NDArray[np.float32] = np.float32(about.Scale(0)) * (values - zero).astype(
        np.float32
    )
    return scaled
