"""timm's own loader, on what is pushed to the Hub."""

import dataclasses

import hub_case
import hub_server
import numpy as np
import pytest
import torch
from PIL import Image

import pathencoder
from pathencoder import compat, network

# of the client's own code; and of a card without the figures of a release
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Warnings while validating metadata:UserWarning"),
]

GATED = dataclasses.replace(
    hub_case.SPEC,
    name="gated",
    model_args={
        **hub_case.ARGS,
        "init_values": 1e-5,
        "mlp_ratio": 5.33334,
        "mlp_layer": "SwiGLUPacked",
        "act_layer": "SiLU",
        "reg_tokens": 2,
        "no_embed_class": True,
    },
    prefix_tokens=3,
)


def noise(seed, side=40):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pushed(spec, repo):
    torch.manual_seed(0)
    net = network.create(spec, random=True)
    with torch.no_grad():  # at their initial values, layer scales hide the blocks
        for name, value in net.named_parameters():
            if "gamma" in name:
                value.fill_(0.5)
    encoder = pathencoder.Encoder(net, spec)
    encoder.push_to_hub(repo, token=hub_server.GOOD_TOKEN)
    return encoder


def by_timm(repo, tile):
    """As timm's users do it."""
    timm = compat.import_timm()
    model = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        return model(transform(Image.fromarray(tile))[None])[0].numpy()


def test_a_vit_gives_the_embedding(server):
    encoder, tile = pushed(hub_case.SPEC, "me/vit"), noise(0)
    rows = encoder.encode([tile], precision="fp32")
    np.testing.assert_allclose(by_timm("me/vit", tile), rows[0], atol=1e-5)


def test_gated_layers_are_described_so_that_timm_can_build_them(server):
    encoder, tile = pushed(GATED, "me/gated"), noise(0)
    rows = encoder.encode([tile], precision="fp32")
    np.testing.assert_allclose(by_timm("me/gated", tile), rows[0], atol=1e-5)
    again = pathencoder.load_encoder("me/gated")
    assert "mlp_layer" not in again.spec.model_args
    np.testing.assert_array_equal(again.encode([tile], precision="fp32"), rows)


def test_a_revision_in_timms_form(server):
    pushed(hub_case.SPEC, "me/vit")
    server.repos["me/vit"].tags["v1"] = server.repos["me/vit"].refs["main"]
    tile = noise(0)
    np.testing.assert_array_equal(by_timm("me/vit@v1", tile), by_timm("me/vit", tile))
