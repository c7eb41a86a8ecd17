"""Published key names become timm's: counts, shapes, values, and messages for mismatches."""

import re

import pytest
import torch

from pathencoder import network
from pathencoder.errors import IncompatibleWeights
from pathencoder.pretrained import keys
from pathencoder.pretrained.catalogue import catalogue
from pathencoder.spec import EncoderSpec


def meta(*shape):
    return torch.empty(*shape, device="meta")


def linear(name, out, into):
    return {f"{name}.weight": meta(out, into), f"{name}.bias": meta(out)}


def norm(name, width):
    return {f"{name}.weight": meta(width), f"{name}.bias": meta(width)}


def published_hf(
    width, depth, patch, positions, *, hidden, gated=False, registers=0, vit=False, new=False
):
    """The key names that transformers writes: 4.x, or with `new` those that 5.x has in memory."""
    state = {
        "embeddings.cls_token": meta(1, 1, width),
        "embeddings.position_embeddings": meta(1, positions, width),
    }
    state |= {
        "embeddings.patch_embeddings.projection.weight": meta(width, 3, patch, patch),
        **norm("layernorm", width),
    }
    state["embeddings.patch_embeddings.projection.bias"] = meta(width)
    if not vit:
        state["embeddings.mask_token"] = meta(1, width)
    if registers:
        state["embeddings.register_tokens"] = meta(1, registers, width)
    for i in range(depth):
        block = f"layers.{i}" if vit and new else f"encoder.layer.{i}"
        names = (
            ("q_proj", "k_proj", "v_proj", "o_proj")
            if new
            else ("attention.query", "attention.key", "attention.value", "output.dense")
        )
        for name in names:
            state |= linear(f"{block}.attention.{name}", width, width)
        for name in ("layernorm_before", "layernorm_after") if vit else ("norm1", "norm2"):
            state |= norm(f"{block}.{name}", width)
        if not vit:
            state |= {f"{block}.layer_scale{j}.lambda1": meta(width) for j in (1, 2)}
        state |= published_mlp(block, width, hidden, gated=gated, vit=vit, new=new)
    return state


def published_mlp(block, width, hidden, *, gated, vit, new):
    if gated and new:
        parts = {
            "gate_proj": (hidden, width),
            "up_proj": (hidden, width),
            "down_proj": (width, hidden),
        }
    elif gated:
        parts = {"weights_in": (2 * hidden, width), "weights_out": (width, hidden)}
    else:
        parts = {"fc1": (hidden, width), "fc2": (width, hidden)}
    state = {}
    for name, shape in parts.items():
        state |= linear(f"{block}.mlp.{name}", *shape)
    if vit and not new:
        old = {".mlp.fc1.": ".intermediate.dense.", ".mlp.fc2.": ".output.dense."}
        state = {re.sub(r"\.mlp\.fc[12]\.", lambda m: old[m[0]], k): v for k, v in state.items()}
    return state


HF = {  # row: arguments, keys of transformers 4.x, keys of 5.x
    "phikon": (dict(width=768, depth=12, patch=16, positions=197, hidden=3072, vit=True), 198, 198),
    "phikon-v2": (dict(width=1024, depth=24, patch=16, positions=197, hidden=4096), 439, 439),
    "midnight-12k": (
        dict(width=1536, depth=40, patch=14, positions=257, hidden=4096, gated=True),
        727,
        807,
    ),
    "hibou-b": (
        dict(width=768, depth=12, patch=14, positions=257, hidden=2048, gated=True, registers=4),
        224,
        None,
    ),
    "hibou-l": (
        dict(width=1024, depth=24, patch=14, positions=257, hidden=2736, gated=True, registers=4),
        440,
        None,
    ),
}


@pytest.mark.parametrize("new", [False, True], ids=["4.x", "5.x"])
@pytest.mark.parametrize("name", HF)
def test_transformers_names_fit_the_row(name, new):
    arguments, old_count, new_count = HF[name]
    published = published_hf(**arguments, new=new)
    count = new_count if new else old_count
    assert count is None or len(published) == count
    spec = catalogue()[name]
    keys.check(keys.to_timm(published, spec), network.create(spec), spec, "published")


def test_a_pooler_and_a_task_prefix_are_left_out():
    spec = catalogue()["phikon"]
    state = published_hf(**HF["phikon"][0]) | linear("pooler.dense", 768, 768)
    state = {f"vit.{k}": v for k, v in state.items()}
    keys.check(keys.to_timm(state, spec), network.create(spec), spec, "published")


def published_dinov2(chunks=0, prefix="", mask=True):
    """facebookresearch/dinov2's names for the ViT-g/14 with registers (OpenMidnight, OpenPath)."""
    width, depth, hidden = 1536, 40, 4096
    state = {
        "cls_token": meta(1, 1, width),
        "pos_embed": meta(1, 257, width),
        "register_tokens": meta(1, 4, width),
        **norm("norm", width),
    }
    state |= {
        "patch_embed.proj.weight": meta(width, 3, 14, 14),
        "patch_embed.proj.bias": meta(width),
    }
    if mask:
        state["mask_token"] = meta(1, width)
    for i in range(depth):
        block = f"blocks.{i * chunks // depth}.{i}" if chunks else f"blocks.{i}"
        state |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        state |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(
            f"{block}.attn.proj", width, width
        )
        state |= linear(f"{block}.mlp.w12", 2 * hidden, width) | linear(
            f"{block}.mlp.w3", width, hidden
        )
        state |= {f"{block}.ls{j}.gamma": meta(width) for j in (1, 2)}
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize("mask", [True, False], ids=["with mask_token", "stripped"])
def test_openmidnight(mask):
    spec = catalogue()["openmidnight"]
    published = published_dinov2(mask=mask)
    assert len(published) == 567 + mask
    before = dict(published)
    keys.check(keys.to_timm(published, spec), network.create(spec), spec, "published")
    assert published == before, "the caller's dict was changed"


def test_openpath_is_a_training_checkpoint():
    spec = catalogue()["openpath"]
    published = published_dinov2(chunks=4, prefix="backbone.") | {
        "dino_head.last_layer.weight": meta(8, 8)
    }
    keys.check(keys.to_timm(published, spec), network.create(spec), spec, "published")


def test_class_token_takes_its_position_when_there_are_registers():
    spec = tiny(layout="dinov2")
    state = {
        "cls_token": torch.ones(1, 1, 4),
        "pos_embed": torch.arange(12.0).view(1, 3, 4),
        "register_tokens": torch.full((1, 2, 4), 7.0),
    }
    out = keys.to_timm(state, spec)
    assert torch.equal(out["cls_token"], torch.ones(1, 1, 4) + torch.arange(4.0))
    assert torch.equal(out["pos_embed"], torch.arange(4.0, 12.0).view(1, 2, 4))
    assert torch.equal(out["reg_token"], state["register_tokens"])


def test_query_key_value_are_packed_in_that_order():
    spec = tiny(layout="hf_vit")
    state = {
        f"encoder.layer.0.attention.attention.{n}.bias": torch.full((2,), i)
        for i, n in enumerate(("value", "query", "key"))
    }
    assert keys.to_timm(state, spec)["blocks.0.attn.qkv.bias"].tolist() == [1, 1, 2, 2, 0, 0]


def test_gate_comes_before_up():
    state = {
        "encoder.layer.0.mlp.up_proj.bias": torch.ones(2),
        "encoder.layer.0.mlp.gate_proj.bias": torch.zeros(2),
    }
    assert keys.to_timm(state, tiny(layout="hf_dinov2"))["blocks.0.mlp.fc1.bias"].tolist() == [
        0,
        0,
        1,
        1,
    ]


def test_old_swin_downsampling_moves_to_the_next_stage():
    spec = catalogue()["ctranspath"]
    net = network.create(spec)
    modern = dict(net.state_dict())
    old = {
        re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
        for k, v in modern.items()
    }
    old |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49),
    }
    for state in (old, modern):
        renamed = keys.to_timm(state, spec)
        keys.check(renamed, net, spec, "published")
        assert renamed["layers.1.downsample.reduction.weight"].shape == (192, 384)


@pytest.mark.parametrize("prefix", ["encoder.", "module.backbone.", ""])
def test_dino_in_a_module_of_another_name(prefix):
    spec = catalogue()["sp22m"]
    net = network.create(spec)
    published = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    published["module.head.mlp.0.weight" if "module" in prefix else "head.weight"] = meta(8, 8)
    state = {k.removeprefix("module.") if "head" in k else k: v for k, v in published.items()}
    keys.check(keys.to_timm(state, spec), net, spec, "published")


def test_keep_has_other_names_and_a_text_half():
    spec = catalogue()["keep"]
    net = network.create(spec)
    published = {"text.embeddings.weight": meta(8, 8), "logit_scale": meta(1)}
    for name, value in net.state_dict().items():
        if name.startswith("head."):
            published[f"visual_{name}"] = value
        else:
            published[f"visual.{name}".replace(".gamma", ".weight")] = value
    assert "visual.blocks.0.ls1.weight" in published
    assert "visual_head.2.bias" in published
    keys.check(keys.to_timm(published, spec), net, spec, "published")
    again = keys.to_timm(net.state_dict(), spec)  # as save_pretrained writes it
    keys.check(again, net, spec, "saved")


def tiny(**changes):
    fields = dict(
        name="tiny",
        architecture="vit_tiny_patch16_224",
        dim=48,
        width=48,
        input_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        prefix_tokens=1,
    )
    args = dict(img_size=32, embed_dim=48, depth=2, num_heads=3)
    return EncoderSpec(**{**fields, "model_args": args, **changes})


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        (dict(init_values=1e-5), "init_values"),
        (dict(mlp_layer="SwiGLUPacked", act_layer="SiLU"), "SwiGLUPacked"),
        (dict(img_size=64), "position embedding"),
        (dict(reg_tokens=4), "position embedding"),
    ],
)
def test_mismatches_are_counted_with_examples_and_a_hint(found, hint):
    spec = tiny()
    other = network.create(tiny(model_args={**spec.model_args, **found}))
    with pytest.raises(IncompatibleWeights, match=hint) as caught:
        keys.check(other.state_dict(), network.create(spec), spec, "weights.bin")
    assert "weights.bin" in str(caught.value)
    assert re.search(r"\d+ keys? (missing|not used|of another shape)", str(caught.value))


@pytest.mark.parametrize(
    ("rename", "hint"),
    [
        (lambda k: f"module.backbone.{k}", "training checkpoint"),
        (lambda k: f"embeddings.{k}", "transformers"),
        (lambda k: k.replace(".mlp.fc1.", ".mlp.w12."), "layout 'dinov2'"),
        (lambda k: k.replace("norm1", "ln_1"), "another architecture"),
    ],
)
def test_other_names_get_a_hint(rename, hint):
    spec = tiny()
    net = network.create(spec)
    with pytest.raises(IncompatibleWeights, match=hint):
        keys.check({rename(k): v for k, v in net.state_dict().items()}, net, spec, "weights.bin")


def test_missing_layer_scale_gets_a_hint():
    spec = tiny(model_args={**tiny().model_args, "init_values": 1e-5})
    with pytest.raises(IncompatibleWeights, match="leave init_values out"):
        keys.check(network.create(tiny()).state_dict(), network.create(spec), spec, "weights.bin")


def test_two_keys_for_one_name_are_refused():
    state = {"blocks.0.3.norm1.weight": torch.ones(1), "blocks.1.3.norm1.weight": torch.ones(1)}
    with pytest.raises(IncompatibleWeights, match="two keys"):
        keys.to_timm(state, tiny(layout="dinov2"))
