"""Renamed transformers checkpoints give transformers' tokens, on small random networks."""

import pytest
import torch

from pathencoder import compat, network, outputs
from pathencoder.pretrained import keys
from pathencoder.spec import EncoderSpec

compat.import_timm()  # makes torchvision importable, which transformers needs too
import transformers  # noqa: E402

pytestmark = pytest.mark.full

SIZE = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, image_size=32, patch_size=8)
ARGS = dict(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3)
# 48 x 4 x 2/3 = 128, gate and up concatenated
GATED = dict(mlp_layer="SwiGLUPacked", act_layer="SiLU", mlp_ratio=256 / 48)


def spec(layout, architecture="vit_tiny_patch16_224", prefix=1, **args):
    return EncoderSpec(
        name="small",
        architecture=architecture,
        model_args={**ARGS, **args},
        layout=layout,
        dim=48,
        width=48,
        input_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        prefix_tokens=prefix,
    )


def vit():
    config = transformers.ViTConfig(**SIZE, intermediate_size=192, layer_norm_eps=1e-12)
    return transformers.ViTModel(config, add_pooling_layer=False), spec(
        "hf_vit", norm_layer="LayerNorm1e-12"
    )


def dinov2(**changes):
    return transformers.Dinov2Model(
        transformers.Dinov2Config(**{**SIZE, **changes}, layerscale_value=0.3)
    )


def registers(**changes):
    config = transformers.Dinov2WithRegistersConfig(
        **SIZE, **changes, num_register_tokens=4, layerscale_value=0.3
    )
    return transformers.Dinov2WithRegistersModel(config)


REG4 = dict(architecture="vit_base_patch14_reg4_dinov2", prefix=5, init_values=1.0)
CASES = {
    "vit": vit,
    "dinov2": lambda: (dinov2(), spec("hf_dinov2", init_values=1.0)),
    "dinov2, gated": lambda: (
        dinov2(use_swiglu_ffn=True),
        spec("hf_dinov2", init_values=1.0, **GATED),
    ),
    "registers": lambda: (registers(), spec("hf_dinov2", **REG4)),
    "registers, gated": lambda: (
        registers(use_swiglu_ffn=True),
        spec("hf_dinov2", **REG4, **GATED),
    ),
    "other grid": lambda: (dinov2(image_size=80), spec("hf_dinov2", init_values=1.0)),
}


def randomised(model):
    """Random parameters: zero biases and equal scales would hide swapped names."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("on_disk", [True, False], ids=["4.x names", "5.x names"])
@pytest.mark.parametrize("case", CASES)
def test_same_tokens(case, on_disk, tmp_path):
    model, small = CASES[case]()
    randomised(model)
    state = model.state_dict()
    if on_disk:
        from safetensors.torch import load_file

        model.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
    net = network.create(small)
    renamed = keys.to_timm(state, small)
    keys.check(renamed, net, small, case)
    net.load_state_dict(renamed, assign=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = model(x).last_hidden_state
        found = net.forward_features(x)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=2e-5), (found - expected).abs().max()


def test_the_image_half_of_clip_gives_its_projection():
    config = transformers.CLIPConfig(
        vision_config=dict(**SIZE, intermediate_size=192), projection_dim=16
    )
    model = randomised(transformers.CLIPModel(config))
    small = EncoderSpec(
        name="small",
        architecture="vit_base_patch32_clip_quickgelu_224",
        model_args={**ARGS, "num_classes": 16},
        layout="hf_clip",
        embedding="head",
        dim=16,
        width=48,
        input_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        prefix_tokens=1,
    )
    net = network.create(small)
    renamed = keys.to_timm(model.state_dict(), small)
    keys.check(renamed, net, small, "clip")
    net.load_state_dict(renamed, assign=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = model.vision_model(pixel_values=x)
        expected = model.visual_projection(tokens.pooler_output)
        found = outputs.read(net, small, x).embedding
    assert torch.allclose(found, expected, atol=2e-5)


def test_epsilon_matters():
    """1e-6 instead of 1e-12 loads without an error and changes the tokens of small activations."""
    model, right = vit()
    randomised(model)
    with torch.no_grad():
        model.embeddings.patch_embeddings.projection.weight.mul_(1e-3)
        model.embeddings.position_embeddings.mul_(1e-3)
        model.embeddings.cls_token.mul_(1e-3)
    x = torch.randn(1, 3, 32, 32)
    outputs = []
    for small in (right, spec("hf_vit")):
        net = network.create(small)
        net.load_state_dict(keys.to_timm(model.state_dict(), small), assign=True)
        with torch.inference_mode():
            outputs.append(net.forward_features(x))
    with torch.inference_mode():
        expected = model(x).last_hidden_state
    assert torch.allclose(outputs[0], expected, atol=2e-5)
    assert (outputs[1] - expected).abs().max() > 10 * (outputs[0] - expected).abs().max()
