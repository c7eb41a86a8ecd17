"""Read specs from timm's hub config.json and transformers' preprocessor_config.json."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.spec import UNKNOWN_LICENCE, EncoderSpec

_log = logging.getLogger(__name__)

# timm's default where a config has none
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CROP = 0.875  # likewise
# PIL.Image.Resampling, as transformers writes it
_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def spec_from_timm(config: dict[str, Any], name: str) -> EncoderSpec:
    """The spec of a network in timm's hub format, with the preprocessing of `create_transform`.

    The embedding is the class token for a network that has one, unless the config selects another
    pooling; else the network's pooled output. Such a file does not state scale, stains and terms:
    mpp is None and commercial use is not assumed.

    Args:
        config: The content of config.json.
        name: The name of the encoder.

    Returns:
        The spec.

    Raises:
        ConfigError: The config has another format, or this timm does not know the network.
    """
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        kind = config.get("model_type")
        found = f"it is transformers' (model_type {kind!r})" if kind else "it names no architecture"
        raise ConfigError(
            f"{name}: config.json is not in timm's hub format, {found}. `pathencoder list` names"
            " the encoders that load by name"
        )
    cfg = _pretrained_cfg(config)
    size = _input_size(cfg, name)
    args = dict(config.get("model_args") or {})
    if cfg.get("fixed_input_size") and not args.get("dynamic_img_size"):  # as timm does
        args.setdefault("img_size", size)
    mean, std = _IMAGENET
    draft = EncoderSpec(
        name=name,
        architecture=architecture,
        model_args=args,
        dim=1,
        width=1,
        input_size=size,
        mean=mean,
        std=std,
        mpp=None,
        licence=str(cfg.get("license") or UNKNOWN_LICENCE),
        summary=f"{architecture} of {name}",
    )
    return dataclasses.replace(_with_readout(draft), **_found(config, draft))


def with_preprocessing(spec: EncoderSpec, config: dict[str, Any]) -> EncoderSpec:
    """Replace interpolation and crop of a spec by those of a config, and mean and std if unknown.

    Mean and std that the catalogue knows stay: copies of weights on the Hub often have timm's
    defaults in their config, not what the encoder was trained with. A difference is logged.

    Args:
        spec: The spec.
        config: A timm config.json or a transformers preprocessor_config.json.

    Returns:
        The new spec.

    Raises:
        ConfigError: Neither spec nor config has mean and std, or the crop is not supported.
    """
    found = _found(config, spec)
    if spec.normalisation_known:
        there = found.pop("mean"), found.pop("std")
        if not np.allclose(there, (spec.mean, spec.std), atol=1e-4):
            _log.warning(
                "%s: %s of its repository has mean %s and std %s; the published %s and %s are used",
                *(spec.name, spec.config_file, *there, spec.mean, spec.std),
            )
    spec = dataclasses.replace(spec, **found)
    if not spec.normalisation_known:
        raise ConfigError(
            f"{spec.name}: {spec.config_file} of its repository holds no mean and std, and nothing"
            " else gives them: ask its authors"
        )
    return spec


def _found(config: dict[str, Any], spec: EncoderSpec) -> dict[str, Any]:
    """Mean, std, interpolation and crop as a config of either format states them."""
    if "image_mean" in config:
        return _from_processor(config, spec)
    return _from_pretrained_cfg(config, spec)


def _input_size(cfg: dict[str, Any], name: str) -> int:
    sides = cfg.get("input_size") or [3, 224, 224]
    if len(sides) != 3 or sides[0] != 3 or sides[1] != sides[2]:
        raise ConfigError(
            f"{name}: input_size {sides} of its config.json is not a square of three channels"
        )
    return int(sides[1])


def _with_readout(draft: EncoderSpec) -> EncoderSpec:
    """The spec with tokens, width and embedding of the network, run once on the meta device."""
    import torch

    from pathencoder import network, outputs

    try:
        net = network.create(draft)
        spec = dataclasses.replace(draft, **_readout(net))
        probe = torch.zeros(
            1, 3, spec.input_size, spec.input_size, device=next(net.parameters()).device
        )
        with torch.inference_mode():
            dim = outputs.read(network.create(spec).to(probe.device), spec, probe).embedding.shape[
                1
            ]
    except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
        raise ConfigError(
            f"{draft.name}: {draft.architecture!r} with {draft.model_args} cannot be built and read"
            f" here ({error})"
        ) from error
    return dataclasses.replace(spec, dim=dim)


def _readout(net: Any) -> dict[str, Any]:
    tokens = hasattr(net, "num_prefix_tokens")
    pool = getattr(net, "global_pool", None)
    if tokens and getattr(net, "cls_token", None) is not None and pool in (None, "", "token"):
        embedding = "cls"
    else:
        embedding = "mean" if pool == "" else "pool"
    return {
        "prefix_tokens": int(net.num_prefix_tokens) if tokens else 0,
        "embedding": embedding,
        "width": int(net.num_features),
        "parameters": sum(p.numel() for p in net.parameters()),
    }


def _pretrained_cfg(config: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing section; older timm configs are flat."""
    return config.get("pretrained_cfg") or config


def _from_pretrained_cfg(config: dict[str, Any], spec: EncoderSpec) -> dict[str, Any]:
    """As timm: the shortest side ("squash": both sides) to input / crop_pct, centre crop."""
    cfg = _pretrained_cfg(config)
    default = _CROP if "architecture" in config else 1.0
    mode, share = cfg.get("crop_mode") or "center", float(cfg.get("crop_pct") or default)
    scaled = math.floor(spec.input_size / share)
    if mode not in ("center", "squash") or (mode == "squash" and scaled != spec.input_size):
        raise ConfigError(
            f"{spec.name}: crop_mode {mode!r} with crop_pct {share} is not supported, only center,"
            " and squash of the whole tile"
        )
    return {
        "mean": tuple(cfg.get("mean") or spec.mean),
        "std": tuple(cfg.get("std") or spec.std),
        "interpolation": str(cfg.get("interpolation") or "bicubic"),
        "resize": "squash" if mode == "squash" else "shortest",
        "resize_size": None if scaled == spec.input_size else scaled,
    }


def _from_processor(config: dict[str, Any], spec: EncoderSpec) -> dict[str, Any]:
    """As transformers: `size` is the shortest edge or height and width; optionally a crop."""
    size = config.get("size")
    shortest = (
        size.get("shortest_edge")
        if isinstance(size, dict)
        else size
        if isinstance(size, int)
        else None
    )
    return {
        "mean": tuple(config["image_mean"]),
        "std": tuple(config["image_std"]),
        "interpolation": _PIL.get(int(config.get("resample", 2)), str(config.get("resample"))),
        "resize": "squash" if shortest is None else "shortest",
        "resize_size": None if shortest in (None, spec.input_size) else shortest,
    }
