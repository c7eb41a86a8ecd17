"""A spec's timm network, and how its outputs are read.

Class token, means, dense maps, the recommended embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import compat
from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import bare

Network = Any  # a timm module: its attributes differ by family


# Children that come after the feature maps. timm names them alike over its families.
_HEADS = ("global_pool", "classifier", "fc", "head", "head_drop", "fc_norm")


# Containers whose members are stages of their own.
_STAGED = ("blocks", "stages", "layers")


def create(spec: EncoderSpec, *, random: bool = False) -> Network:
    """The network of a spec: with timm's random initial weights, or with none yet (on the meta device wherever timm allows it)."""
    timm = compat.import_timm()
    build = functools.partial(
        timm.create_model, spec.architecture, pretrained=False, **_constructor_args(spec)
    )
    try:
        with torch.device("cpu" if random else "meta"):
            network = build()
    # timm's constructors raise most of Python's errors for a name or arguments that they do not
    # know
    except Exception as error:
        raise ConfigError(
            f"encoder {spec.name!r}: timm cannot build architecture {spec.architecture!r} with"
            f" {spec.model_args} ({error}). Correct its config.json, or install the timm version"
            " that it was written for"
        ) from error
    # Buffers outside the state dict (Swin's position indices) are computed in the constructor and
    # would be lost on meta.
    if not random and set(dict(network.named_buffers())) - set(network.state_dict()):
        with torch.random.fork_rng(devices=[]):  # loading leaves the caller's random numbers alone
            network = build()
    if spec.layout == "ctranspath":
        with torch.random.fork_rng(devices=[], enabled=not random):
            network.patch_embed = _ConvStem()
    return network.eval()


def has_tokens(network: Network) -> bool:
    """Whether it is a transformer whose features are tokens [N, L, C] (ViT and its kin.

    Swin's are maps).
    """
    return hasattr(bare(network), "num_prefix_tokens")


def has_cls(network: Network) -> bool:
    """Whether it is a transformer with a class token."""
    return has_tokens(network) and getattr(network, "cls_token", None) is not None


def walk(network: Network, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Run a convolutional network module by module up to its pooling: (module path, [N, C, h, w]) after each."""
    for path, module in trunk(network):
        x = module(x)
        yield path, x


def trunk(network: Network) -> list[tuple[str, nn.Module]]:
    """The modules before the pooling in their order.

    The members of `blocks`, `stages` and `layers` count one by one.
    """
    steps: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if name in _HEADS:
            break
        staged = name in _STAGED and isinstance(child, nn.Sequential)
        steps += [(f"{name}.{i}", m) for i, m in enumerate(child)] if staged else [(name, child)]
    return steps


def stages(network: Network, x: Tensor) -> list[Tensor]:
    """Outputs [N, C, h, w] of a CNN's stages (members of `blocks`/`stages`, or `layer1`..`layer4`).

    Raises ConfigError if it has none.
    """
    found = [
        channels_first(network, m)
        for path, m in walk(network, x)
        if "." in path or path.startswith("layer")
    ]
    if not found:
        raise ConfigError(
            f"{type(network).__name__} has no stages that are known here: use output='embedding',"
            " 'mean' or 'dense'"
        )
    return found


def channels_first(network: Network, maps: Tensor) -> Tensor:
    """Maps [N, C, h, w] of what a stage gives: some networks' are NHWC inside."""
    return (
        maps.permute(0, 3, 1, 2)
        if getattr(network, "output_fmt", "NCHW") == "NHWC" and maps.ndim == 4
        else maps
    )


def _constructor_args(spec: EncoderSpec) -> dict[str, Any]:
    """model_args with layer classes in place of their names.

    A JSON file cannot hold a class, and timm's hub loader leaves them out silently (SwiGLU gates
    would then run GELU on an identical state dict).
    """
    compat.import_timm()
    from timm.layers import SwiGLUPacked

    classes = {
        "SwiGLUPacked": SwiGLUPacked,
        "SiLU": nn.SiLU,
        "GELU": nn.GELU,
        "LayerNorm1e-12": functools.partial(nn.LayerNorm, eps=1e-12),
    }
    args: dict[str, Any] = {"num_classes": 0, **spec.model_args}
    for key in ("mlp_layer", "act_layer", "norm_layer"):
        if key in args:
            if args[key] not in classes:
                raise ConfigError(
                    f"encoder {spec.name!r}: {key} {args[key]!r} is not one of {sorted(classes)}"
                )
            args[key] = classes[args[key]]
    if "relpos" not in spec.architecture and (
        spec.prefix_tokens or spec.architecture.startswith("vit_")
    ):
        args["dynamic_img_size"] = True  # changes no weight; lets H and W differ from the default
    return args


class _ConvStem(nn.Module):
    """CTransPath's stem (Wang et al. 2022, Medical Image Analysis 81): 3 -> 12 -> 24 -> 96 channels at stride 4, NHWC out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 12), (12, 24)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.proj = nn.Sequential(*layers, nn.Conv2d(24, 96, 1))
        self.norm = nn.LayerNorm(96)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out
