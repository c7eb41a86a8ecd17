"""Convert published key names to timm's, and check that weights fit a network.

No transformers, no remote code: a checkpoint is a dict of tensors, and only the names (and the
packing of some tensors) differ.

| layout | source | conversion |
|---|---|---|
| timm | timm | none |
| hf_vit | transformers' ViTModel, names of 4.x and 5.x | q, k, v packed into qkv |
| hf_dinov2 | transformers' Dinov2Model, registers or not | as hf_vit; gate and up packed into fc1 |
| hf_clip | transformers' CLIPModel, its image half | as hf_vit; the projection is the head |
| dinov2 | facebookresearch/dinov2 and its descendants | w12, w3 to fc1, fc2; heads removed |
| dino | facebookresearch/dino in a module of another name | that name and heads removed |
| ctranspath | Swin of timm 0.5.4, convolutional stem | downsampling moved to the next stage |
| keep | KEEPModel, its image half | LayerScale renamed; the projection is the head |
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pathencoder.errors import IncompatibleWeights
from pathencoder.spec import EncoderSpec
from pathencoder.state_dicts import Differences, shapes_of

_log = logging.getLogger(__name__)

State = dict[str, Tensor]

_HF_NAMES = (
    (r"^(?:vit|dinov2|dinov2_with_registers)\.", ""),  # saved from a model with a task head
    (r"^embeddings\.(cls_token)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(?:attention\.)?q(?:uery|_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.)?k(?:ey|_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.)?v(?:alue|_proj)\.", ".attn.v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"(\.\d+)\.(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
_CLIP_NAMES = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^visual_projection\.", "head."),
)
_KEEP_NAMES = (
    (r"^visual\.", ""),
    (r"^visual_head\.", "head."),
    (r"\.ls([12])\.weight$", r".ls\1.gamma"),
)
_HF_DROPPED = re.compile(r"^(?:\w+\.)?(?:embeddings\.mask_token|pooler\..*)$")
_HF_PACKED = (
    (".attn.qkv.", (".attn.q.", ".attn.k.", ".attn.v.")),
    (".mlp.fc1.", (".mlp.gate_proj.", ".mlp.up_proj.")),
)

# Kind of keys, pattern, advice; the first that occurs is given.
_HINTS = tuple(
    (kind, re.compile(pattern), text)
    for kind, pattern, text in (
        (
            "unused",
            r"^(module|student|teacher|backbone|model)\.",
            "The keys start like a training checkpoint's: load the export/ folder of its run"
            " instead",
        ),
        (
            "unused",
            r"encoder\.layer\.|embeddings\.",
            "These are transformers' key names: the spec needs layout 'hf_vit' or 'hf_dinov2'",
        ),
        (
            "unused",
            r"\.mlp\.w12\.|register_tokens|mask_token",
            "These are DINOv2's own key names: the spec needs layout 'dinov2'",
        ),
        (
            "misshapen",
            r"\.mlp\.fc",
            "Perhaps gated layers: model_args needs mlp_layer 'SwiGLUPacked', act_layer 'SiLU' and"
            " a mlp_ratio",
        ),
        (
            "unused",
            r"\.ls[12]\.",
            "The weights have LayerScale: model_args needs init_values",
        ),
        (
            "missing",
            r"\.ls[12]\.",
            "The weights have no LayerScale: leave init_values out of model_args",
        ),
        (
            "misshapen",
            r"pos_embed",
            "The position embedding differs: img_size, patch_size, reg_tokens or no_embed_class of"
            " model_args",
        ),
        (
            "either",
            r"downsample",
            "A Swin of an older timm: the spec needs layout 'ctranspath'",
        ),
    )
)

_DINOV2_NAMES = (
    # chunks of blocks; the inner number counts over all chunks
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def to_timm(state: Mapping[str, Tensor], spec: EncoderSpec) -> State:
    """Convert a checkpoint to timm's key names.

    Args:
        state: Tensors by their published names; not changed.
        spec: Its `layout` selects the conversion.

    Returns:
        Tensors by timm's names, shared with the input where possible.

    Raises:
        IncompatibleWeights: Two published keys become the same name.
    """
    if spec.layout in ("hf_vit", "hf_dinov2"):
        return _from_hf(state, spec.input_size)
    convert: dict[str, Callable[[Mapping[str, Tensor]], State]] = {
        "timm": dict,
        "hf_clip": _from_clip,
        "dinov2": _from_dinov2,
        "dino": _from_dino,
        "ctranspath": _from_ctranspath,
        "keep": _from_keep,
    }
    return convert[spec.layout](state)


def _from_hf(state: Mapping[str, Tensor], input_size: int) -> State:
    kept = {name: tensor for name, tensor in state.items() if not _HF_DROPPED.match(name)}
    out = _renamed(kept, _HF_NAMES)
    for packed, parts in _HF_PACKED:
        _pack(out, packed, parts)
    if "pos_embed" in out and "patch_embed.proj.weight" in out:
        out["pos_embed"] = _positions_for(
            out["pos_embed"], input_size // out["patch_embed.proj.weight"].shape[-1]
        )
    return _with_registers(out)


def _positions_for(positions: Tensor, side: int) -> Tensor:
    """Resize a position embedding to [1, 1 + side^2, C] as transformers does (no antialiasing)."""
    stored = math.isqrt(positions.shape[1] - 1)
    if stored in (0, side) or stored**2 != positions.shape[1] - 1:
        return positions
    grid = positions[:, 1:].unflatten(1, (stored, stored)).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(
        grid, size=(side, side), mode="bicubic", align_corners=False
    )
    return torch.cat(
        [positions[:, :1], resized.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1
    )


def _from_clip(state: Mapping[str, Tensor]) -> State:
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(("vision_model.", "visual_projection."))
        and not name.endswith(".position_ids")
    }
    out = _renamed(kept, _CLIP_NAMES)
    _pack(out, ".attn.qkv.", (".attn.q.", ".attn.k.", ".attn.v."))
    if "cls_token" in out and "pos_embed" in out:
        out["cls_token"] = out["cls_token"].view(1, 1, -1)
        out["pos_embed"] = out["pos_embed"][None]
    if "head.weight" in out:  # transformers' projection has no bias, timm's head has one
        out["head.bias"] = torch.zeros_like(out["head.weight"][:, 0])
    return out


def _from_dino(state: Mapping[str, Tensor]) -> State:
    out = _renamed(state, ((r"^(?:module\.)?(?:backbone|encoder)\.", ""),))
    return {name: tensor for name, tensor in out.items() if not name.startswith("head.")}


def _from_keep(state: Mapping[str, Tensor]) -> State:
    if not any(name.startswith("visual.") for name in state):
        return dict(state)  # timm's names already
    kept = {name: tensor for name, tensor in state.items() if name.startswith("visual")}
    return _renamed(kept, _KEEP_NAMES)


def _from_dinov2(state: Mapping[str, Tensor]) -> State:
    prefix = "backbone."
    # a training checkpoint: the other keys are projection heads
    if any(name.startswith(prefix) for name in state):
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
    kept = {name: tensor for name, tensor in state.items() if name != "mask_token"}
    return _with_registers(_renamed(kept, _DINOV2_NAMES))


def _from_ctranspath(state: Mapping[str, Tensor]) -> State:
    kept = {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith((".attn_mask", ".relative_position_index"))
    }
    if not any(name.startswith("layers.0.downsample.") for name in kept):
        return kept  # modern timm, where stage 0 has no downsampling
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", _next_stage, name): tensor
        for name, tensor in kept.items()
    }


def _next_stage(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample."


def _renamed(state: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> State:
    out: State = {}
    for published, tensor in state.items():
        name = published
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        if name in out:
            raise IncompatibleWeights(
                f"two keys of this checkpoint become {name!r}, the second is {published!r}: the"
                " layout is not supported"
            )
        out[name] = tensor
    return out


def _pack(state: State, packed: str, parts: tuple[str, ...]) -> None:
    """Replace keys that differ only in `parts` by one with their tensors concatenated in order."""
    for name in [n for n in state if parts[0] in n]:
        sources = [name.replace(parts[0], part) for part in parts]
        if all(source in state for source in sources):
            state[name.replace(parts[0], packed)] = torch.cat(
                [state.pop(source) for source in sources]
            )


def _with_registers(state: State) -> State:
    """Adapt to timm, where class token and registers have no position embedding.

    The position embedding of the class token is added to the token itself.
    """
    if "register_tokens" not in state:
        return state
    state["reg_token"] = state.pop("register_tokens")
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def without_classifier(state: State, network: Any) -> State:
    """Drop the classification layer of a timm checkpoint, which an encoder does not have.

    Args:
        state: Tensors under timm's key names.
        network: The timm network; its `pretrained_cfg` names the layer.

    Returns:
        The other tensors.
    """
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (heads,) if isinstance(heads, str) else tuple(heads)
    own = network.state_dict()
    dropped = [
        k for k in state if k not in own and any(k in (f"{n}.weight", f"{n}.bias") for n in names)
    ]
    if dropped:
        _log.debug("left out the classifier: %s", ", ".join(dropped))
    return {k: v for k, v in state.items() if k not in dropped}


def check(state: Mapping[str, Tensor], network: Any, spec: EncoderSpec, source: object) -> None:
    """Check that a checkpoint has exactly the keys and shapes of a network.

    Args:
        state: Tensors under timm's key names.
        network: The network of the spec.
        spec: The encoder's description.
        source: What an error calls the checkpoint.

    Raises:
        IncompatibleWeights: Keys or shapes differ; the message has counts, examples and a hint.
    """
    differences = Differences(shapes_of(state), shapes_of(network.state_dict()))
    if differences:
        raise IncompatibleWeights(
            f"{source} does not fit {spec.architecture} as {spec.name} builds it: {differences}."
            f" {_hint(differences)}."
        )


def _hint(differences: Differences) -> str:
    """The first hint whose pattern occurs among the keys of its kind."""
    kinds = {
        "missing": differences.missing,
        "unused": differences.unused,
        "misshapen": differences.misshapen,
        "either": [*differences.missing, *differences.unused],
    }
    return next(
        (text for kind, pattern, text in _HINTS if any(map(pattern.search, kinds[kind]))),
        "The weights seem to be of another architecture",
    )
