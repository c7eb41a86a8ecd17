"""A convolution and the BatchNorm with fixed statistics after it as one convolution.

- Such a BatchNorm is a factor and a shift a channel: both go into the weights of the convolution
  (Jacob et al. 2018, section 3.2).
- TensorFlow's "same" padding pads one side more than the other, which timm does by copying the
  input into a larger tensor. A kernel with a first row and column of zeros and equal padding on all
  sides reads the same values without the copy.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from pathencoder import compat


def can_fold(conv: Any, norm: Any, *, adapters: bool = False) -> bool:
    """Whether the weights of two modules make one convolution, if the second follows the first.

    Args:
        conv: The first module.
        norm: The second.
        adapters: A convolution with an adapter of LoRA counts too.
    """
    compat.import_timm()
    from timm.layers import BatchNormAct2d
    from timm.layers.conv2d_same import Conv2dSame

    inner = conv.base_layer if adapters and _is_plain_lora(conv) else conv
    return (
        type(inner) in (nn.Conv2d, Conv2dSame)  # a subclass may compute something else
        and inner.padding_mode == "zeros"
        and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
        and norm.running_mean is not None
        and norm.num_features == inner.out_channels
    )


def _is_plain_lora(module: Any) -> bool:
    """Whether a module is a convolution of peft with one adapter that is added to its weight."""
    peft = sys.modules.get("peft.tuners.lora.layer")
    return (
        peft is not None
        and type(module) is peft.Conv2d
        and list(module.lora_A) == list(module.active_adapters)
        and len(module.lora_A) == 1
        and not (module.merged or module.disable_adapters)
        and not (any(module.lora_bias.values()) or any(module.use_dora.values()))
        and all(type(dropout) is nn.Identity for dropout in module.lora_dropout.values())
    )


def weights_of(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does the work of both; differentiable.

    Args:
        conv: A convolution, or one with an adapter.
        norm: The BatchNorm after it.
    """
    plain = getattr(conv, "base_layer", conv)
    weight = plain.weight
    if plain is not conv:
        weight = weight + conv.get_delta_weight(conv.active_adapters[0])
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean if plain.bias is None else plain.bias - norm.running_mean
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return weight * scale[:, None, None, None], bias


def pads_like_tensorflow(conv: Any) -> bool:
    """Whether `SamePadded` computes a convolution."""
    kernel = conv.kernel_size
    return (
        type(conv) is not nn.Conv2d
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and kernel[0] == kernel[1]
        and kernel[0] % 2 == 1
    )


class SamePadded(nn.Module):
    """A convolution with an odd kernel, stride 2 and TensorFlow's "same" padding."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv  # pads by a copy
        self.pad = conv.kernel_size[0] // 2
        self.widened: Tensor
        self.widen()

    def widen(self) -> None:
        """Make the larger kernel of the present weights."""
        self.widened = pad(self.conv.weight.detach(), (1, 0, 1, 0)).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to half of its height and width, rounded up."""
        odd = {side % 2 for side in x.shape[2:]}
        if len(odd) == 2:
            result: Tensor = self.conv(x)
            return result
        weight = self.conv.weight if odd == {1} else self.widened
        return conv2d(
            x, weight, self.conv.bias, stride=2, padding=self.pad, groups=self.conv.groups
        )


class TrainedConv(nn.Module):
    """A convolution and the BatchNorm after it, whose weights are trained.

    The weights are folded at each call, so that gradients reach those of both modules. That costs
    little beside a pass over all pixels, which the BatchNorm is, forward and backward.

    Args:
        conv: The convolution, or one with an adapter of LoRA: its weight is that of both.
        norm: The BatchNorm; its activation is not a part of this module.
    """

    def __init__(self, conv: nn.Module, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """What the two give one after the other."""
        conv: Any = getattr(self.conv, "base_layer", self.conv)
        weight, bias = weights_of(self.conv, self.norm)
        # "same" padding by a copy: the gradient of a widened kernel takes three times as long
        run = conv2d if type(conv) is nn.Conv2d else _conv2d_same()
        how = conv.stride, conv.padding, conv.dilation, conv.groups
        if not (x.requires_grad and _has_slow_gradient(conv, x.dtype)):
            result: Tensor = run(x, weight, bias, *how)
            return result
        with torch.autocast(x.device.type, enabled=False):
            result = run(x.float(), weight.float(), bias.float(), *how)
        return result.to(x.dtype)


def _has_slow_gradient(conv: Any, dtype: torch.dtype) -> bool:
    """Whether a gradient takes far longer than in float32: up to 12 times here (torch 2.13)."""
    return dtype == torch.bfloat16 and conv.groups > 1 and max(conv.stride) > 1


def _conv2d_same() -> Any:
    from timm.layers.conv2d_same import conv2d_same

    return conv2d_same
