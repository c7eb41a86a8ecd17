"""The network of an encoder in a form that can be exported, for images of any size.

TensorFlow's "same" padding depends on the size of the image, which tracing would fix. ONNX knows
it as an attribute of a convolution; for torch it is computed from the shape.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import compat
from pathencoder.folded_convs import SamePadded
from pathencoder.folding import folded
from pathencoder.module import EncoderModule
from pathencoder.outputs import stages_read
from pathencoder.spec import EncoderSpec


def exportable(network: nn.Module, spec: EncoderSpec, *, for_onnx: bool) -> EncoderModule:
    """A module that maps normalised float32 [N, 3, H, W] to the embedding, BatchNorms folded.

    Args:
        network: A timm network with float32 weights on the CPU; it is not changed.
        spec: Its description.
        for_onnx: Whether ONNX is made of it.
    """
    alike = folded(network, stages_read(spec))
    twin = copy.deepcopy(alike).eval().requires_grad_(False)  # noqa: FBT003
    compat.import_timm()
    from timm.layers.conv2d_same import Conv2dSame

    modules = dict(twin.named_modules())
    inner = {f"{path}.conv" for path, module in modules.items() if isinstance(module, SamePadded)}
    for path, module in modules.items():
        conv = module.conv if isinstance(module, SamePadded) else module
        if isinstance(conv, Conv2dSame) and path not in inner:
            parent, _, name = path.rpartition(".")
            same = _OnnxSame(conv) if for_onnx else _Same(conv)
            setattr(twin.get_submodule(parent), name, same)
    return EncoderModule(twin, spec)


class _Same(nn.Module):
    """A convolution with TensorFlow's "same" padding, in operations that can be traced."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        pads: list[Any] = []
        for axis in (1, 0):  # the last side comes first
            side, stride = x.shape[2 + axis], self.stride[axis]
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            missing = ((side - 1) // stride) * stride + reach - side
            total: Any = torch.sym_max(missing, 0)
            pads += [total // 2, total - total // 2]
        padded = nn.functional.pad(x, pads)
        return nn.functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class _OnnxSame(_Same):
    """The same as one operation of ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        # ONNX divides whole numbers towards zero, Python downwards: none may be negative
        sides = [
            (side - 1) // stride + 1 for side, stride in zip(x.shape[2:], self.stride, strict=True)
        ]
        made: Tensor = torch.onnx.ops.symbolic(
            "Conv",
            [x, self.weight] if self.bias is None else [x, self.weight, self.bias],
            {
                "auto_pad": "SAME_UPPER",
                "strides": list(self.stride),
                "dilations": list(self.dilation),
                "group": self.groups,
            },
            dtype=x.dtype,
            shape=[x.shape[0], self.weight.shape[0], *sides],
        )
        return made
