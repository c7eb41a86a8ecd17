"""verify: the published embedding of the reference tile, from any folder and in any batch."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import pathencoder
from pathencoder import network, runtime
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError
from pathencoder.pretrained import catalogue, folder
from pathencoder.spec import EncoderSpec
from pathencoder.verify import verify

SPEC = EncoderSpec(
    name="small",
    architecture="vit_tiny_patch16_224",
    model_args=dict(img_size=32, embed_dim=48, depth=2, num_heads=3),
    dim=48,
    width=48,
    input_size=32,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    prefix_tokens=1,
)


@pytest.fixture
def saved(tmp_path):
    """A small encoder in a folder of our format, with its reference."""
    torch.manual_seed(0)
    net = network.create(SPEC, random=True)
    tile = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    encoder = pathencoder.Encoder(net, SPEC)
    with torch.inference_mode():
        vector = encoder(encoder.transform(tile)[None]).embedding[0].numpy()
    folder.write_folder(
        tmp_path / "small", SPEC, net.state_dict(), reference_tile=tile, reference_embedding=vector
    )
    return tmp_path / "small"


def rewrite(path, change):
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", catalogue.bundled())
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_bundled_encoders_give_their_reference_in_any_batch(name, batch):
    encoder = pathencoder.load_encoder(name, device="cpu")
    reference = folder.read_reference(catalogue.BUNDLED / name)
    rows = encoder.encode([reference.tile] * 7, batch_size=batch, progress=False)
    expected = reference.embedding / np.linalg.norm(reference.embedding)
    cosines = rows @ expected / np.linalg.norm(rows, axis=1)
    assert 1 - cosines.min() < 1e-4  # the bar is 1e-3


def test_verify_finds_other_weights(saved):
    encoder = pathencoder.load_encoder(saved)
    good = verify(encoder)
    assert good.ok
    assert good.max_abs < 1e-5
    with torch.no_grad():
        encoder.network.blocks[0].attn.qkv.weight.mul_(3)
    bad = verify(encoder)
    assert not bad.ok
    assert bad.cosine < good.cosine


def test_verify_uses_encode_with_its_defaults(saved, monkeypatch):
    encoder = pathencoder.load_encoder(saved)
    monkeypatch.setattr(
        runtime.Runner, "_forward", lambda self, pixels: torch.ones(len(pixels), SPEC.dim)
    )
    assert not verify(encoder).ok


def test_verify_finds_another_preprocessing(saved):
    rewrite(saved, lambda c: c["pretrained_cfg"].update(mean=[0.1, 0.2, 0.9]))
    assert not verify(pathencoder.load_encoder(saved)).ok


def test_verify_needs_a_reference(saved):
    (saved / "reference.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"reference\.safetensors"):
        verify(pathencoder.load_encoder(saved))
    with pytest.raises(ConfigError, match="nothing to compare"):
        verify(pathencoder.Encoder(network.create(SPEC, random=True), SPEC))


def test_verify_refuses_a_reference_of_another_length(saved):
    spec = dataclasses.replace(SPEC, dim=96, embedding="cls_mean")
    net = network.create(SPEC, random=True)
    folder.write_folder(
        saved,
        spec,
        net.state_dict(),
        reference_tile=np.zeros((32, 32, 3), np.uint8),
        reference_embedding=np.zeros(48, np.float32),
    )
    with pytest.raises(ConfigError, match="48 values instead of 96"):
        verify(pathencoder.load_encoder(saved))


def test_verify_sees_rows_that_depend_on_the_batch(saved, monkeypatch):
    encoder = pathencoder.load_encoder(saved)
    right = runtime.Runner._forward
    monkeypatch.setattr(
        runtime.Runner,
        "_forward",
        lambda self, pixels: right(self, pixels) if len(pixels) == 1 else -right(self, pixels),
    )
    assert verify(encoder).cosine < 0


def test_the_command_compares_what_it_can(saved, capsys, no_hub):
    assert run(["verify", str(saved)]) == 0
    assert "pass" in capsys.readouterr().out
    assert run(["verify", str(saved), "uni", "--json"]) == 3
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["ok"]) == ("small", True)
    assert (second["name"], second["ok"]) == ("uni", None)
    assert "no reference embedding is published" in second["reason"]
    rewrite(saved, lambda c: c["pretrained_cfg"].update(mean=[0.1, 0.2, 0.9]))
    assert run(["verify", str(saved), "uni"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_the_command_says_where_no_reference_is_published(capsys):
    assert run(["verify", "UNI"]) == 2
    assert "uni: no reference embedding is published for it" in capsys.readouterr().err
    assert run(["verify", "uni", "virchow"]) == 1
