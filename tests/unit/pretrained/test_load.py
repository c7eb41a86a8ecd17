"""load_encoder offline: the bundled default, folders of both formats, random weights, errors."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pathencoder
from pathencoder import compat, network, runtime
from pathencoder.errors import (
    ChecksumError,
    ConfigError,
    IncompatibleWeights,
    UnknownEncoder,
)
from pathencoder.pretrained import catalogue, folder, locate
from pathencoder.spec import EncoderSpec
from pathencoder.verify import verify

ARGS = dict(img_size=32, embed_dim=48, depth=2, num_heads=3)
SPEC = EncoderSpec(
    name="small",
    architecture="vit_tiny_patch16_224",
    model_args=ARGS,
    dim=48,
    width=48,
    input_size=32,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    prefix_tokens=1,
)


@pytest.fixture
def saved(tmp_path):
    """A small encoder in a folder of our format, with its reference; returns the folder."""
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


def test_the_default_needs_no_network(no_hub):
    encoder = pathencoder.load_encoder()
    assert encoder.spec.name == catalogue.DEFAULT
    assert not encoder.training
    assert encoder.folder == catalogue.BUNDLED / catalogue.DEFAULT
    assert encoder.dtype == torch.float32
    assert verify(encoder).ok


@pytest.mark.parametrize("as_path", [True, False])
def test_a_folder(saved, as_path):
    encoder = pathencoder.load_encoder(saved if as_path else str(saved), device="cpu")
    assert encoder.folder == saved
    assert encoder.spec.sha256 == folder.sha256_of(saved / "model.safetensors")
    expected = load_file(saved / "model.safetensors")
    assert all(torch.equal(v, expected[k]) for k, v in encoder.network.state_dict().items())


def test_a_relative_folder_and_one_in_the_home_directory(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    monkeypatch.setenv("HOME", str(saved.parent))
    for name in ("small", "./small", "~/small"):
        assert pathencoder.load_encoder(name).spec.name == "small"


def test_a_folder_that_only_shares_its_name_with_an_encoder_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / catalogue.DEFAULT).mkdir()
    (tmp_path / "uni").mkdir()
    assert pathencoder.load_encoder(catalogue.DEFAULT).spec.name == catalogue.DEFAULT
    assert locate.describe("uni") == catalogue.catalogue()["uni"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype(saved, dtype):
    encoder = pathencoder.load_encoder(saved, dtype=dtype)
    assert {p.dtype for p in encoder.parameters()} == {dtype}
    assert verify(encoder).ok


def test_half_precision_weights_become_float32(saved):
    state = {k: v.half() for k, v in load_file(saved / "model.safetensors").items()}
    folder.write_folder(saved, SPEC, state)
    assert pathencoder.load_encoder(saved).dtype == torch.float32


def test_loaded_weights_can_be_trained(saved):
    encoder = pathencoder.load_encoder(saved)
    before = folder.sha256_of(saved / "model.safetensors")
    encoder(torch.randn(1, 3, 32, 32)).embedding.sum().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.sub_(parameter.grad if parameter.grad is not None else 0)
    assert folder.sha256_of(saved / "model.safetensors") == before, (
        "training wrote into the file that it was mapped from"
    )


def test_convolutions_are_channels_last():
    weights = [
        m.weight for m in pathencoder.load_encoder().modules() if isinstance(m, torch.nn.Conv2d)
    ]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_random_weights_need_none():
    encoder = pathencoder.load_encoder("kaiko-vits16", pretrained=False)
    assert not any(p.is_meta for p in encoder.parameters())
    assert encoder(torch.zeros(1, 3, 224, 224)).embedding.shape == (1, 384)
    other = pathencoder.load_encoder("kaiko-vits16", pretrained=False)
    assert not torch.equal(
        encoder.network.blocks[0].attn.qkv.weight, other.network.blocks[0].attn.qkv.weight
    )
    assert encoder.spec.sha256 is None


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownEncoder, match=r"nearest: .*virchow2"):
        pathencoder.load_encoder("virchow-2")
    with pytest.raises(UnknownEncoder, match="pathencoder list"):
        pathencoder.load_encoder("nothing like it")


@pytest.mark.parametrize("name", ["./gone", "/gone/away", "~/gone"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(UnknownEncoder, match="no folder"):
        pathencoder.load_encoder(name)


def test_a_folder_without_config_and_one_without_weights(tmp_path, saved):
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        pathencoder.load_encoder(tmp_path)
    (saved / "model.safetensors").unlink()
    with pytest.raises(IncompatibleWeights, match="holds no weights"):
        pathencoder.load_encoder(saved)


def test_a_revision_of_a_folder_is_refused(saved):
    with pytest.raises(ConfigError, match="revision"):
        pathencoder.load_encoder(saved, revision="v1")
    with pytest.raises(ConfigError, match="revision"):
        pathencoder.load_encoder(catalogue.DEFAULT, revision="v1")


def test_one_changed_byte_is_noticed(saved):
    data = bytearray((saved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "model.safetensors").write_bytes(data)
    with pytest.raises(ChecksumError, match="the recorded one"):
        pathencoder.load_encoder(saved)


def test_a_truncated_file_is_noticed_without_a_checksum(saved):
    rewrite(saved, lambda c: c["pathencoder"].update(sha256=None))
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(IncompatibleWeights, match="complete safetensors"):
        pathencoder.load_encoder(saved)


def rewrite(place, change):
    config = json.loads((place / "config.json").read_text())
    change(config)
    (place / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change", [lambda s: s.pop("norm.weight"), lambda s: s.update(extra=torch.zeros(2))]
)
def test_a_missing_or_an_extra_key_is_an_error(saved, change):
    state = load_file(saved / "model.safetensors")
    change(state)
    folder.write_folder(saved, SPEC, state)
    with pytest.raises(IncompatibleWeights, match=r"1 key (missing|not used)"):
        pathencoder.load_encoder(saved)


def test_an_unknown_device():
    with pytest.raises(ConfigError, match="'auto'"):
        pathencoder.load_encoder(device="quantum")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.pick_device("auto").type == expected


# timm's hub format in a folder


def timm_folder(path, net, config, weights="model.safetensors"):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if weights.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path / weights)
    else:
        torch.save(net.state_dict(), path / weights)
    return path


def timm_vit(num_classes=0):
    timm = compat.import_timm()
    return timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **ARGS)


CFG = {
    "input_size": [3, 32, 32],
    "fixed_input_size": True,
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "interpolation": "bilinear",
}


def test_timms_format_with_its_own_preprocessing(tmp_path):
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": ARGS,
        "global_pool": "token",
        "pretrained_cfg": {**CFG, "crop_pct": 1.0},
    }
    net = timm_vit().eval()
    encoder = pathencoder.load_encoder(timm_folder(tmp_path / "t", net, config))
    spec = encoder.spec
    assert (spec.embedding, spec.dim, spec.prefix_tokens, spec.input_size) == ("cls", 48, 1, 32)
    assert (spec.mean, spec.std, spec.interpolation, spec.resize, spec.resize_size) == (
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        "bilinear",
        "shortest",
        None,
    )
    assert spec.mpp is None
    assert not spec.commercial
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(encoder(x).embedding, net(x), atol=1e-6)


def test_timms_default_crop_is_used_where_the_config_has_none(tmp_path):
    config = {"architecture": "vit_tiny_patch16_224", "model_args": ARGS, "pretrained_cfg": CFG}
    spec = pathencoder.load_encoder(timm_folder(tmp_path / "t", timm_vit(), config)).spec
    assert (spec.resize, spec.resize_size) == ("shortest", 36)  # 32 / 0.875


def test_a_classifiers_last_layer_is_left_out(tmp_path):
    config = {"architecture": SPEC.architecture, "model_args": ARGS, "pretrained_cfg": CFG}
    place = timm_folder(tmp_path / "t", timm_vit(num_classes=10), {**config, "num_classes": 10})
    encoder = pathencoder.load_encoder(place)
    assert encoder.spec.dim == 48


def test_a_cnn_gives_its_own_pooling(tmp_path):
    timm = compat.import_timm()
    net = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    config = {
        "architecture": "mobilenetv3_small_050",
        "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1.0},
    }
    encoder = pathencoder.load_encoder(timm_folder(tmp_path / "t", net, config))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(encoder(x).embedding, net(x), atol=1e-5)
    assert (encoder.spec.embedding, encoder.spec.dim, encoder.spec.width) == ("pool", 1024, 288)


def test_timm_loads_our_folder_too(saved):
    timm = compat.import_timm()
    net = timm.create_model(f"local-dir:{saved}", pretrained=True, num_classes=0).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(net(x), pathencoder.load_encoder(saved)(x).embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "dinov2", "hidden_size": 8}, "transformers"),
        ({"architecture": "no_such_network"}, "cannot be built|cannot build"),
        (
            {"architecture": "resnet18", "pretrained_cfg": {"input_size": [1, 64, 64]}},
            "three channels",
        ),
        ({"architecture": "resnet18", "pretrained_cfg": [1]}, "does not describe an encoder"),
        (
            {"architecture": "resnet18", "model_args": {"no_such": 1}},
            "cannot be built|cannot build",
        ),
        ({"architecture": "hf-hub:owner/repo"}, "is not a timm name"),
        ({"architecture": "resnet18", "pretrained_cfg": {"crop_mode": "border"}}, "crop_mode"),
    ],
)
def test_configs_of_other_kinds_are_refused(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        pathencoder.load_encoder(tmp_path)


# pickles


def test_a_plain_pickle_is_read_as_tensors(tmp_path):
    config = {"architecture": "vit_tiny_patch16_224", "model_args": ARGS, "pretrained_cfg": CFG}
    net = timm_vit()
    encoder = pathencoder.load_encoder(
        timm_folder(tmp_path / "t", net, config, "pytorch_model.bin")
    )
    assert torch.equal(encoder.network.norm.weight, net.norm.weight)


def test_the_bundled_folder_can_be_copied_anywhere(tmp_path):
    shutil.copytree(catalogue.BUNDLED / catalogue.DEFAULT, tmp_path / "copy")
    assert verify(pathencoder.load_encoder(tmp_path / "copy")).ok
