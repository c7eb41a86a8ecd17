"""Published key names -> timm's, and what to say when weights and network do not fit each other.

No transformers, no remote code: a checkpoint is a dict of tensors, and only names (and the packing
of some tensors) differ.

| layout     | found in                                    | becomes
|
|------------|---------------------------------------------|----------------------------------------------------------------|
| timm       | timm's own                                  | unchanged
| | hf_vit     | transformers ViTModel, 4.x and 5.x names    | q, k, v packed into qkv
| | hf_dinov2  | transformers Dinov2Model, with or without registers, MLP or SwiGLU | the same; gate
and up packed into fc1   | | dinov2     | facebookresearch/dinov2 and its descendants | w12, w3 ->
fc1, fc2; training heads and block chunks taken off | | ctranspath | timm 0.5.4 Swin with a
convolutional stem   | downsampling moved from the end of a stage to the next's start |
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
_HF_DROPPED = re.compile(r"^(?:\w+\.)?(?:embeddings\.mask_token|pooler\..*)$")
_HF_PACKED = (
    (".attn.qkv.", (".attn.q.", ".attn.k.", ".attn.v.")),
    (".mlp.fc1.", (".mlp.gate_proj.", ".mlp.up_proj.")),
)

_DINOV2_NAMES = (
    # chunks of blocks; the inner number counts over all chunks
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def to_timm(state: Mapping[str, Tensor], spec: EncoderSpec) -> State:
    """The checkpoint under timm's key names, by `spec.layout`.

    The input is left as it is; tensors are shared where they can be.

    Raises IncompatibleWeights when two published keys claim the same name.
    """
    if spec.layout in ("hf_vit", "hf_dinov2"):
        return _from_hf(state, spec.input_size)
    convert: dict[str, Callable[[Mapping[str, Tensor]], State]] = {
        "timm": dict,
        "dinov2": _from_dinov2,
        "ctranspath": _from_ctranspath,
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
    """[1, 1 + n, C] for a grid of another size -> [1, 1 + side^2, C], interpolated as transformers does it (no antialiasing)."""
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


def _from_dinov2(state: Mapping[str, Tensor]) -> State:
    prefix = "backbone."
    # a training checkpoint: the rest are its projection heads
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
                f"two keys of this checkpoint stand for {name!r}, the second is {published!r}: not"
                " a layout known here"
            )
        out[name] = tensor
    return out


def _pack(state: State, packed: str, parts: tuple[str, ...]) -> None:
    """Replace keys that differ only in `parts` by one that holds their tensors joined in that order."""
    for name in [n for n in state if parts[0] in n]:
        sources = [name.replace(parts[0], part) for part in parts]
        if all(source in state for source in sources):
            state[name.replace(parts[0], packed)] = torch.cat(
                [state.pop(source) for source in sources]
            )


def _with_registers(state: State) -> State:
    """timm gives no position to class token and registers.

    The class token's own is added to it once and for all.
    """
    if "register_tokens" not in state:
        return state
    state["reg_token"] = state.pop("register_tokens")
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def without_classifier(state: State, network: Any) -> State:
    """timm's checkpoints of classifiers carry a last layer that no encoder has.

    The network says what it would be called.
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
    """Raises IncompatibleWeights unless the checkpoint has exactly the network's keys and shapes.

    counts, examples and a guess.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing, unused = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    misshapen = [k for k in wanted if k in found and wanted[k] != found[k]]
    if not (missing or unused or misshapen):
        return
    parts = [
        _count(missing, "missing", lambda k: f"{k} {list(wanted[k])}"),
        _count(unused, "not used by the network", lambda k: f"{k} {list(found[k])}"),
        _count(
            misshapen,
            "of another shape",
            lambda k: f"{k} {list(found[k])} instead of {list(wanted[k])}",
        ),
    ]
    what = "; ".join(p for p in parts if p)
    raise IncompatibleWeights(
        f"{source} does not fit {spec.architecture} as {spec.name} builds it: {what}."
        f" {_guess(missing, unused, misshapen)}"
    )


def _count(names: list[str], what: str, show: Callable[[str], str]) -> str:
    if not names:
        return ""
    examples = ", ".join(show(name) for name in names[:3])
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {'key' if len(names) == 1 else 'keys'} {what} ({examples}{more})"


def _guess(missing: list[str], unused: list[str], misshapen: list[str]) -> str:
    """The likeliest reason, said as one; the first that fits wins."""

    def has(names: list[str], *parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    guesses = (
        (any(n.startswith(("module.", "student.", "teacher.", "backbone.", "model.")) for n in unused),
         "The keys start like a training checkpoint's: load the export/ folder of its run instead"),
        (has(unused, "encoder.layer.", "embeddings."), "These are transformers' key names: the spec needs layout 'hf_vit' or 'hf_dinov2'"),
        (has(unused, ".mlp.w12.", "register_tokens", "mask_token"), "These are DINOv2's own key names: the spec needs layout 'dinov2'"),
        (has(misshapen, ".mlp.fc"), "Perhaps gated layers: model_args needs mlp_layer 'SwiGLUPacked', act_layer 'SiLU' and a mlp_ratio"),
        (has(unused, ".ls1.", ".ls2."), "The weights have LayerScale: model_args needs init_values"),
        (has(missing, ".ls1.", ".ls2."), "The weights have no LayerScale: leave init_values out of model_args"),
        (has(misshapen, "pos_embed"), "The position embedding differs: img_size, patch_size, reg_tokens or no_embed_class of model_args"),
        (has([*missing, *unused], "downsample"), "A Swin of an older timm: the spec needs layout 'ctranspath'"),
    )  # fmt: skip
    return (
        next(
            (text for fits, text in guesses if fits),
            "The weights seem to be of another architecture",
        )
        + "."
    )
