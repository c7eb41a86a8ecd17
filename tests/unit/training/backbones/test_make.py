"""The network that a run starts with: any encoder of the catalogue, as inference builds it."""

import dataclasses
import logging

import pytest
import torch

from pathencoder.errors import ConfigError
from pathencoder.network import create
from pathencoder.pretrained.catalogue import catalogue
from training.backbones import make
from training.config import BackboneSettings, ExportSettings

pytestmark = pytest.mark.full


def described(name):
    """An encoder of the catalogue; ViTs with two blocks."""
    spec = catalogue()[name]
    shallow = {"depth": 2} if spec.architecture.startswith("vit_") else {}
    return dataclasses.replace(spec, model_args={**spec.model_args, **shallow})


def completed(monkeypatch, name, **settings):
    """The settings that start from a name, without looking anything up on the Hub."""
    monkeypatch.setattr("training.backbones.make.locate.describe", described)
    found = make.with_start(BackboneSettings(start=name, **settings))
    return found.model_copy(update={"start": None})


@pytest.mark.parametrize("name", catalogue())
def test_every_encoder_of_the_catalogue_starts_a_run(monkeypatch, name):
    spec = described(name)
    settings = completed(monkeypatch, name, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with torch.device("meta"):
        network = make.make_backbone(settings)
        theirs = {k: v.shape for k, v in create(spec).state_dict().items()}
        assert {k: v.shape for k, v in network.state_dict().items()} == theirs
        width = make.output_width(network)
        # patches of 16, 14 or 8 px, windows of 7 patches
        assert network.eval()(torch.empty(2, 3, 224, 224)).shape == (2, width)
    exported = make.spec_of(settings, ExportSettings())
    assert (exported.dim, exported.layout) == (spec.dim, spec.timm_layout)
    assert exported.prefix_tokens == spec.prefix_tokens


def test_the_start_decides_the_network_and_dropout_stays(monkeypatch, caplog):
    asked = {
        "architecture": "vit_small_patch16_224",
        "args": {"reg_tokens": 4, "drop_path_rate": 0.1},
        "embedding": "cls",
    }
    with caplog.at_level(logging.INFO, "training"):
        found = completed(monkeypatch, "hibou-b", **asked)
    assert found.architecture == "vit_base_patch14_reg4_dinov2"
    assert found.args["drop_path_rate"] == 0.1
    assert found.args["mlp_layer"] == "SwiGLUPacked"
    assert "reg_tokens" not in found.args
    assert "backbone.architecture=vit_small_patch16_224 is replaced by" in caplog.text


def test_an_architecture_that_timm_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"'mobilenet_v9'.*Change backbone\.architecture"):
        make.make_backbone(BackboneSettings(architecture="mobilenet_v9"))


def test_an_export_resizes_tiles_as_its_start_does(monkeypatch):
    """Before, it said "squash" and "bicubic" whatever the start's authors do."""
    spec = dataclasses.replace(described("virchow"), interpolation="bilinear", resize="shortest")
    spec = dataclasses.replace(spec, resize_size=256)
    monkeypatch.setattr("training.backbones.make.locate.describe", lambda _: spec)
    settings = make.with_start(BackboneSettings(start="virchow"))
    made = make.spec_of(settings.model_copy(update={"start": None}), ExportSettings())
    kept = ("interpolation", "resize", "resize_size", "input_size", "mean", "std")
    assert [getattr(made, k) for k in kept] == [getattr(spec, k) for k in kept]


def test_numbers_in_arguments_may_be_written_as_yaml_does_not_read_them():
    args = BackboneSettings(args={"init_values": "1e-5", "act_layer": "GELU"}).args
    assert args == {"init_values": 1e-5, "act_layer": "GELU"}
