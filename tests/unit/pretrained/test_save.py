"""Save an encoder to a folder, a pickle or the Hub: valid metadata is kept, other is dropped."""

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_encoders import encoder, picture, shared

import pathencoder
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError, IncompatibleWeights, StoreError
from pathencoder.pretrained import catalogue
from pathencoder.pretrained import folder as folders
from pathencoder.verify import verify


def arrays(count):
    return [picture(i, 80, 72) for i in range(count)]


def test_pickling_keeps_encoder_and_transform():
    enc = shared("vit")
    again = pickle.loads(pickle.dumps(enc))
    assert again.spec == enc.spec
    np.testing.assert_array_equal(again.encode(arrays(2)), enc.encode(arrays(2)))


@pytest.fixture
def source(tmp_path):
    """The folder of a published encoder with everything that a folder may hold.

    Half of its weights are float16.
    """
    enc = encoder("vit", verified=True, training="on tiles", licence="MIT", reference="A paper")
    state = {
        k: v.half() if k.endswith("weight") else v for k, v in enc.network.state_dict().items()
    }
    enc.network.load_state_dict({k: v.float() for k, v in state.items()})
    tile = picture(3)
    folders.write_folder(
        tmp_path / "source",
        enc.spec,
        state,
        reference_tile=tile,
        reference_embedding=enc.encode(tile)[0],
        card="# card: AUROC 0.9\n",
        licence="licence\n",
        metrics={"auroc": 0.9},
    )
    return tmp_path / "source"


def load(folder, **how):
    return pathencoder.load_encoder(folder, device="cpu", **how)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("how", [{}, {"dtype": torch.float64}])
def test_an_unchanged_encoder_is_saved_with_the_same_bytes(source, tmp_path, how):
    load(source, **how).save_pretrained(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(source)
    assert files(source)[folders.METRICS]


def test_the_bundled_encoder_is_saved_with_the_same_bytes(tmp_path):
    pathencoder.load_encoder(device="cpu").save_pretrained(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(catalogue.BUNDLED / catalogue.DEFAULT)


def test_saving_over_what_it_was_loaded_from(source):
    before = files(source)
    load(source).save_pretrained(source)
    assert files(source) == before


def shift(enc):
    with torch.no_grad():
        enc.network.norm.bias.add_(1e-6)


def rescale(enc):
    enc.spec = dataclasses.replace(enc.spec, mpp=0.25)


def lose(enc):
    (enc.origin.weights).unlink()


CHANGES = [
    (shift, {}, "small-vit-modified", r"its weights were changed \(1 of \d+ tensors\)"),
    (rescale, {}, "small-vit-modified", r"its description was changed \(mpp\)"),
    (lose, {}, "small-vit-modified", "could not be compared"),
    (
        lambda enc: None,
        {"dtype": torch.bfloat16},
        "small-vit-bfloat16",
        "its weights were rounded to bfloat16",
    ),
]


@pytest.mark.parametrize(("change", "how", "name", "words"), CHANGES)
def test_a_changed_encoder_claims_nothing_of_its_parent(source, tmp_path, change, how, name, words):
    parent = folders.read_spec(source)
    enc = load(source, **how)
    change(enc)
    enc.save_pretrained(tmp_path / "changed")
    spec = folders.read_spec(tmp_path / "changed")
    assert (spec.name, spec.verified) == (name, False)
    assert spec.sha256 != parent.sha256
    assert re.search(words, spec.training)
    assert "on tiles" not in spec.training
    assert spec.base_model == f"small-vit (sha256 {parent.sha256})"
    card = (tmp_path / "changed" / folders.CARD).read_text()
    assert re.search(words, card)
    assert f"Modified from small-vit (sha256 {parent.sha256})" in card
    assert "base_model: small-vit\n" in card
    assert "license: mit\n" in card
    assert "AUROC" not in card
    assert not (tmp_path / "changed" / folders.METRICS).exists()
    licence = (tmp_path / "changed" / folders.LICENCE).read_text()
    assert "The licence of small-vit" in licence
    assert licence.endswith("licence\n")
    assert verify(load(tmp_path / "changed")).ok


def test_the_users_changes_of_a_spec_are_kept(source, tmp_path):
    enc = load(source)
    shift(enc)
    enc.spec = dataclasses.replace(
        enc.spec, name="mine", training="tuned on my tiles", licence="GPL-3.0"
    )
    enc.save_pretrained(tmp_path / "mine")
    spec = folders.read_spec(tmp_path / "mine")
    assert (spec.name, spec.training, spec.licence) == ("mine", "tuned on my tiles", "GPL-3.0")
    assert "small-vit" in spec.base_model
    assert "licensed: MIT" in (tmp_path / "mine" / folders.CARD).read_text()


def test_a_copy_of_a_changed_one_is_a_copy(source, tmp_path):
    enc = load(source)
    shift(enc)
    enc.save_pretrained(tmp_path / "one")
    load(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_a_spec_of_a_published_encoder_around_other_weights(source, tmp_path):
    made = Encoder(encoder("vit").network, folders.read_spec(source))
    made.save_pretrained(tmp_path / "made")
    spec = folders.read_spec(tmp_path / "made")
    assert (spec.name, spec.verified) == ("small-vit-modified", False)


@pytest.mark.parametrize("licence", ['The "A: B" terms', "Terms of \\x, 'no' use: # 1"])
@pytest.mark.parametrize("name", ["2024", "on", "small-vit"])
def test_the_front_matter_of_a_card_can_be_read(tmp_path, name, licence):
    encoder("vit", name=name, licence=licence).save_pretrained(tmp_path / "parent")
    enc = load(tmp_path / "parent")
    next(enc.network.parameters()).data.mul_(2)
    enc.save_pretrained(tmp_path / "changed")
    card = (tmp_path / "changed" / folders.CARD).read_text()
    found = yaml.safe_load(card.split("---\n")[1])
    assert (found["base_model"], found["license_name"]) == (name, licence)


def test_an_encoder_without_a_reference_is_saved_with_one(tmp_path):
    enc = encoder("cnn")
    with pytest.raises(ConfigError, match="`save_pretrained` writes one"):
        verify(enc)
    enc.save_pretrained(tmp_path / "saved")
    assert verify(load(tmp_path / "saved")).ok


def test_random_weights_have_no_name_or_licence_of_trained_ones(source, tmp_path):
    enc = pathencoder.load_encoder(source, pretrained=False)
    assert (enc.spec.name, enc.spec.verified, enc.spec.training) == (
        "small-vit-random",
        False,
        "none: random weights",
    )
    enc.save_pretrained(tmp_path / "random")
    assert load(tmp_path / "random").spec.name == "small-vit-random"
    assert not (tmp_path / "random" / folders.CARD).exists()


def test_weights_of_another_folder_format_keep_their_values_and_name(source, tmp_path):
    """A folder in timm's format with a classifier is saved in ours, with its source."""
    config = json.loads((source / folders.CONFIG).read_text())
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / folders.CONFIG).write_text(
        json.dumps({k: v for k, v in config.items() if k != "pathencoder"})
    )
    state = load_file(source / folders.WEIGHTS)
    save_file(
        {**state, "head.weight": torch.zeros(2, 64), "head.bias": torch.zeros(2)},
        plain / folders.WEIGHTS,
    )
    enc = load(plain)
    enc.save_pretrained(tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.spec.name == enc.spec.name
    assert "unchanged weights of" in (tmp_path / "ours" / folders.CARD).read_text()
    np.testing.assert_array_equal(again.encode(arrays(2)), enc.encode(arrays(2)))
    shift(again)
    again.save_pretrained(tmp_path / "changed")
    assert "modified" in folders.read_spec(tmp_path / "changed").name


def test_a_network_that_the_spec_does_not_describe_is_not_saved(source, tmp_path):
    enc = load(source)
    enc.network.blocks = enc.network.blocks[:1]
    with pytest.raises(IncompatibleWeights, match=r"encoder\.network does not fit test_vit"):
        enc.save_pretrained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_an_encoder_without_a_folder_can_be_saved(tmp_path):
    enc = encoder("cnn")
    enc.network.to(memory_format=torch.channels_last)
    enc.save_pretrained(tmp_path / "new")
    loaded = pathencoder.load_encoder(tmp_path / "new", device="cpu")
    np.testing.assert_allclose(loaded.encode(arrays(2)), enc.encode(arrays(2)), atol=1e-5)


def test_loading_with_the_arguments_of_huggingface_hub(source):
    enc = Encoder.from_pretrained(
        pretrained_model_name_or_path=source,
        force_download=False,
        token=False,
        map_location="cpu",
        strict=True,
        local_files_only=True,
    )
    assert enc.device.type == "cpu"
    with pytest.raises(ConfigError, match="map_location and device"):
        Encoder.from_pretrained(source, map_location="cpu", device="cpu")


def test_files_of_something_else_are_never_replaced(tmp_path):
    names = ("README.md", "LICENSE", "metrics.json", "model.onnx", "config.json")
    for name in names:
        (tmp_path / name).write_text("mine")
    for enc in (encoder("cnn"), pathencoder.load_encoder(device="cpu")):  # the second is copied
        with pytest.raises(StoreError, match=r"does not hold an encoder, and its .*README\.md"):
            enc.save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in names} == dict.fromkeys(names, "mine")
    (tmp_path / "other.txt").write_text("mine")
    for name in names:
        (tmp_path / name).unlink()
    for _ in range(2):  # beside other files, and over an encoder
        encoder("cnn").save_pretrained(tmp_path)
    assert (tmp_path / "other.txt").read_text() == "mine"


def test_replaced_modules_are_said(tmp_path, caplog):
    encoder("cnn").save_pretrained(tmp_path / "a")
    enc = load(tmp_path / "a")
    enc.save_pretrained(tmp_path / "same")
    assert caplog.text == ""
    for name, module in list(enc.network.named_modules()):
        if isinstance(module, torch.nn.SiLU | torch.nn.ReLU):
            parent = enc.network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.LeakyReLU(0.2))
    enc.save_pretrained(tmp_path / "b")
    assert "gives other rows" in caplog.text
    assert load(tmp_path / "b").spec.name != load(tmp_path / "a").spec.name
