"""Every catalogue row on the meta device, and known pitfalls of loading public encoders.

Most pitfalls load without an error and give wrong numbers, so each has a test.
"""

import ast
import csv
import dataclasses
import functools

import pytest
import torch
from paths import DATA
from torch import nn

from pathencoder import network, outputs, pooling
from pathencoder.errors import ConfigError, ImageError
from pathencoder.pretrained.catalogue import catalogue
from pathencoder.spec import EncoderSpec

FACTS = {
    row["key"]: row for row in csv.DictReader((DATA / "encoders.csv").read_text().splitlines())
}
SWIGLU = [name for name, spec in catalogue().items() if "mlp_layer" in spec.model_args]


@functools.cache
def built(name):
    spec = catalogue()[name]
    return network.create(spec), spec


@pytest.mark.parametrize("name", sorted(FACTS))
def test_parameters_keys_and_output_shapes(name):
    net, spec = built(name)
    fact = FACTS[name]
    keys = list(net.state_dict())
    assert sum(p.numel() for p in net.parameters()) == int(fact["params"]) == spec.parameters
    assert (len(keys), keys[0], keys[-1]) == (int(fact["n_keys"]), fact["first"], fact["last"])
    for entry in filter(None, fact["shapes"].split(";")):
        key, shape = entry.split(":")
        assert tuple(net.state_dict()[key].shape) == ast.literal_eval(shape), key
    x = torch.zeros(1, 3, spec.input_size, spec.input_size, device="meta")
    net = net.to("meta")
    with torch.inference_mode():
        assert tuple(net.forward_features(x).shape) == ast.literal_eval(fact["features"])
        features = outputs.read(net, spec, x)
    assert features.embedding.shape == (1, int(fact["dim"])) == (1, spec.dim)
    assert features.mean.shape == (1, spec.width)
    assert features.dense.shape[:2] == (1, spec.width)


# 1. Class-valued arguments cannot be stored in a JSON config; without act_layer the keys are the
# same and the gates are GELU.
@pytest.mark.parametrize("name", SWIGLU)
def test_pitfall_gated_layers_gate_with_silu(name):
    mlp = built(name)[0].blocks[0].mlp
    assert isinstance(mlp.act, nn.SiLU)
    assert type(mlp).__name__ == "GluMlp"
    assert not mlp.gate_last


def test_pitfall_leaving_out_act_layer_changes_numbers_but_no_key():
    args = dict(
        img_size=32, embed_dim=48, depth=1, num_heads=3, mlp_ratio=5.33334, mlp_layer="SwiGLUPacked"
    )
    right = network.create(small(model_args={**args, "act_layer": "SiLU"}), random=True)
    wrong = network.create(small(model_args=args), random=True)
    wrong.load_state_dict(right.state_dict())  # no error: the pitfall
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.allclose(right(x), wrong(x))
    with pytest.raises(ConfigError, match="SwiGLU"):
        network.create(small(model_args={**args, "mlp_layer": "SwiGLU?"}))


# 2. UNI and its descendants have LayerScale.
@pytest.mark.parametrize("name", ["uni", "mstar", "gpfm", "prov-gigapath"])
def test_pitfall_layer_scale(name):
    assert "blocks.0.ls1.gamma" in built(name)[0].state_dict()


# 3. Where the patch tokens start.
STARTS = {
    1: (
        "virchow",
        "uni",
        "prov-gigapath",
        "midnight-12k",
        "gpfm",
        "phikon",
        "phikon-v2",
        "kaiko-vits16",
        "lunit-vits8",
    ),
    5: (
        "virchow2",
        "h-optimus-0",
        "h-optimus-1",
        "h0-mini",
        "openmidnight",
        "hibou-b",
        "hibou-l",
        "kaiko-vitl14",
    ),
    9: ("uni2-h",),
}


@pytest.mark.parametrize(
    ("name", "start"), [(name, start) for start, names in STARTS.items() for name in names]
)
def test_pitfall_patch_tokens_start_after_the_registers(name, start):
    net, spec = built(name)
    assert spec.prefix_tokens == net.num_prefix_tokens == start


def test_pitfall_means_and_maps_leave_registers_out():
    spec = small(
        model_args={**SMALL, "reg_tokens": 4}, prefix_tokens=5, embedding="cls_mean", dim=96
    )
    net = network.create(spec, random=True)
    x = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        tokens = net.forward_features(x)
        features = outputs.read(net, spec, x)
    assert torch.allclose(features.mean, tokens[:, 5:].mean(1))
    assert torch.equal(features.embedding, torch.cat([tokens[:, 0], features.mean], 1))
    assert torch.equal(features.dense[:, :, 1, 2], tokens[:, 5 + 3 + 2])


# 4. Virchow2 embeds class token and registers in its positions, the others do not.
@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("virchow2", 261),
        ("h-optimus-0", 256),
        ("uni2-h", 256),
        ("h0-mini", 256),
        ("kaiko-vitl14", 1369),
    ],
)
def test_pitfall_positions_of_registers(name, length):
    assert built(name)[0].pos_embed.shape[1] == length


# 5. GigaPath is called patch14 and has patches of 16 pixels.
def test_pitfall_gigapath_patch():
    assert built("prov-gigapath")[0].patch_embed.proj.weight.shape == (1536, 3, 16, 16)


# 6. is in test_catalogue.py (normalisation). 7. A network that returns tokens still gives one
# vector per image.
@pytest.mark.parametrize("name", ["virchow", "virchow2", "h0-mini"])
def test_pitfall_networks_that_return_tokens(name):
    net, spec = built(name)
    x = torch.zeros(1, 3, 224, 224, device="meta")
    assert net(x).ndim == 3
    assert outputs.read(net, spec, x).embedding.shape == (1, 2 * spec.width)


def test_keep_projects_and_normalises():
    spec = small(model_args=SMALL, layout="keep", embedding="head", dim=768)
    net = network.create(spec, random=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = outputs.read(net, spec, x)
        projected = net.head[2](net.head[1](net.head[0](features.cls)))
    assert torch.allclose(features.embedding.norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(features.embedding, projected / projected.norm(dim=1, keepdim=True))


# 8. is in test_keys.py (registers without mask_token). 9. Modern Swin: maps are NHWC.
def test_pitfall_swin_maps_are_channels_last():
    spec = catalogue()["ctranspath"]
    net = network.create(spec, random=True)
    with torch.inference_mode():
        features = outputs.read(net, spec, torch.randn(1, 3, 224, 224))
    assert features.dense.shape == (1, 768, 7, 7)
    assert torch.allclose(features.embedding, features.dense.mean((2, 3)), atol=1e-5)
    assert features.cls is None


# 10. LayerNorm's epsilon: transformers' ViT defaults to 1e-12, Phikon's config was changed to
# timm's 1e-6.
def test_pitfall_layer_norm_epsilon():
    assert built("phikon")[0].norm.eps == 1e-6
    assert (
        network.create(small(model_args={**SMALL, "norm_layer": "LayerNorm1e-12"})).norm.eps
        == 1e-12
    )


SMALL = dict(img_size=32, embed_dim=48, depth=2, num_heads=3)


def small(**changes):
    fields = dict(
        name="small",
        architecture="vit_tiny_patch16_224",
        dim=48,
        width=48,
        input_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        prefix_tokens=1,
    )
    return EncoderSpec(**{**fields, "model_args": SMALL, **changes})


def cnn(**changes):
    fields = dict(
        name="cnn",
        architecture="resnet18",
        dim=512,
        width=512,
        input_size=64,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        embedding="pool",
    )
    return EncoderSpec(**{**fields, **changes})


POOLED = [
    "resnet18",
    "mobilenetv3_small_050",
    "convnext_atto",
    "efficientnet_lite0",
    "vit_relpos_small_patch16_224",
]


@pytest.mark.parametrize("architecture", POOLED)
def test_pool_is_the_networks_own_output(architecture):
    spec = cnn(architecture=architecture, input_size=224)
    net = network.create(spec, random=True)
    spec = dataclasses.replace(spec, prefix_tokens=getattr(net, "num_prefix_tokens", 0))
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(outputs.read(net, spec, x).embedding, net(x), atol=1e-5)


def test_stages_are_joined_in_the_order_given():
    spec = cnn(embedding="stages:layer2,layer4", dim=128 + 512, dense_stage="layer3")
    net = network.create(spec, random=True)
    with torch.inference_mode():
        features = outputs.read(net, spec, torch.randn(1, 3, 64, 64))
        maps, strides = outputs.pyramid(net, spec, torch.randn(1, 3, 64, 64))
    assert features.embedding.shape == (1, spec.dim)
    assert features.dense.shape == (1, 256, 4, 4)
    assert torch.allclose(features.embedding[:, 128:], features.mean)
    assert strides == [4, 8, 16, 32]
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512]


def test_pools_of_stages_are_joined_pool_by_pool():
    spec = cnn(embedding="stages:layer2,layer4/mean,centre,max", dim=3 * (128 + 512))
    net = network.create(spec, random=True)
    x = torch.randn(2, 3, 224, 96)
    with torch.inference_mode():
        embedding = outputs.read(net, spec, x).embedding
        two, four = (dict(network.walk(net, x))[s] for s in ("layer2", "layer4"))
    parts = embedding.split([128, 512] * 3, dim=1)
    middles = (two[:, :, 7:21, 3:9], four[:, :, 2:5, 1:2])  # of 28 x 12 and 7 x 3
    expected = [
        two.mean((2, 3)),
        four.mean((2, 3)),
        *(m.mean((2, 3)) for m in middles),
        two.amax((2, 3)),
        four.amax((2, 3)),
    ]
    for found, wanted in zip(parts, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 1), (4, 6)])
def test_a_peak_is_the_largest_mean_of_neighbours(shape):
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    rows, columns = (min(2, n) for n in shape)
    means = [
        maps[:, :, top : top + rows, left : left + columns].mean((2, 3))
        for top in range(shape[0] - rows + 1)
        for left in range(shape[1] - columns + 1)
    ]
    torch.testing.assert_close(pooling.peak(maps), torch.stack(means).amax(0))


def test_a_peak_moves_less_than_the_largest_value_when_one_value_does():
    maps = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    moved = maps.clone()
    moved[0, 0, 3, 3] += 1
    assert (
        0
        < pooling.peak(moved) - pooling.peak(maps)
        < 0.5 * (pooling.largest(moved) - pooling.largest(maps))
    )


@pytest.mark.parametrize(
    ("side", "left"), [(1, 1), (2, 2), (3, 1), (4, 2), (7, 3), (14, 6), (28, 14)]
)
def test_the_middle_of_a_map_is_never_empty(side, left):
    maps = torch.zeros(1, 1, side, side)
    first = (side - left) // 2
    maps[:, :, first : first + left, first : first + left] = 1
    assert pooling.centre(maps) == 1
    assert pooling.mean(maps) == pytest.approx(left**2 / side**2)


def test_a_side_that_is_not_a_multiple_of_the_patch_is_refused():
    spec = small()
    with pytest.raises(ImageError, match="multiples of 16"):
        outputs.read(network.create(spec), spec, torch.zeros(1, 3, 32, 40, device="meta"))


def test_random_weights_have_data():
    assert not any(p.is_meta for p in network.create(small(), random=True).parameters())
    assert all(p.is_meta for p in network.create(small()).parameters())
