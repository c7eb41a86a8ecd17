"""Describe a network so that timm's own loader can build it from config.json.

timm passes the `model_args` of a config.json to a constructor as they are. A layer class cannot be
written there: its name raises "'str' object is not callable". The gated networks of DINOv2 are the
exception, because timm has an architecture whose own defaults are those classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pathencoder import network as networks
from pathencoder.spec import EncoderSpec

_GATED = "vit_giant_patch14_dinov2"  # its defaults: SwiGLUPacked, SiLU
_CLASSES = ("mlp_layer", "act_layer", "norm_layer")


def needs_classes(spec: EncoderSpec) -> bool:
    """Whether the spec's arguments name layer classes, which timm's loader cannot read."""
    return any(key in spec.model_args for key in _CLASSES)


def callable_by_timm(spec: EncoderSpec) -> EncoderSpec:
    """The spec with an architecture and plain arguments that give the same network.

    Args:
        spec: Of any encoder.

    Returns:
        The spec itself where its arguments are plain, or where timm has no such architecture.
    """
    given = spec.model_args
    plain = {key: value for key, value in given.items() if key not in _CLASSES}
    gated = (given.get("mlp_layer"), given.get("act_layer")) == ("SwiGLUPacked", "SiLU")
    if not gated or "norm_layer" in given or spec.timm_layout != "timm":
        return spec
    network = networks.create(spec)
    if type(network).__name__ != "VisionTransformer":
        return spec
    args = {**_arguments(network), **plain}
    other = dataclasses.replace(spec, architecture=_GATED, model_args=args)
    return other if _fingerprint(networks.create(other)) == _fingerprint(network) else spec


def _arguments(network: networks.Network) -> dict[str, Any]:
    """The arguments of timm's VisionTransformer in which architectures differ."""
    block = network.blocks[0]
    return {
        "img_size": network.patch_embed.img_size[0],
        "patch_size": network.patch_embed.patch_size[0],
        "embed_dim": network.embed_dim,
        "depth": len(network.blocks),
        "num_heads": block.attn.num_heads,
        # half a unit above, since timm rounds down
        "mlp_ratio": (block.mlp.fc1.out_features + 0.5) / network.embed_dim,
        "qkv_bias": block.attn.qkv.bias is not None,
        "init_values": 1e-5 if any(True for _ in block.ls1.parameters()) else None,
        "class_token": network.cls_token is not None,
        "reg_tokens": network.num_reg_tokens,
        "no_embed_class": network.no_embed_class,
        "global_pool": network.global_pool,
    }


def _fingerprint(network: networks.Network) -> tuple[object, ...]:
    """What two networks must share to compute the same from the same weights."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    flags = ("num_prefix_tokens", "no_embed_class", "global_pool", "dynamic_img_size")
    return str(network), shapes, tuple(getattr(network, flag) for flag in flags)
