"""The custom encoder for TRIDENT, against a class of the same shape: TRIDENT is not on PyPI."""

import importlib
import sys
import types

import pytest
import torch
from small_encoders import encoder, picture, shared
from torch import nn

from pathencoder.errors import MissingExtra


class CustomInferenceEncoder(nn.Module):
    """The documented contract of TRIDENT 0.3.0: what its constructor takes and `forward` does."""

    def __init__(self, enc_name, model, transforms, precision):
        super().__init__()
        self.enc_name, self.model = enc_name, model
        self.eval_transforms, self.precision = transforms, precision

    def forward(self, x):
        return self.model(x)


@pytest.fixture
def trident(monkeypatch):
    module = types.ModuleType("trident.patch_encoder_models.load")
    module.CustomInferenceEncoder = CustomInferenceEncoder
    for name in ("trident", "trident.patch_encoder_models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "pathencoder.integrations.trident", raising=False)
    yield importlib.import_module("pathencoder.integrations.trident")
    sys.modules.pop("pathencoder.integrations.trident", None)


def test_it_embeds_as_the_encoder_does(trident):
    made = trident.custom_encoder(shared("vit"))
    assert made.enc_name == "small-vit"
    assert made.precision == torch.float32
    # TRIDENT hands over a PIL image or an array, and calls .cpu() on the result
    batch = made.eval_transforms(picture())[None]
    with torch.inference_mode():
        rows = made(batch).cpu()
        torch.testing.assert_close(rows, shared("vit")(batch).embedding, rtol=0, atol=0)


def test_other_outputs_and_dtypes(trident):
    half = encoder("vit").to(torch.float16)
    made = trident.custom_encoder(half, output="cls_mean")
    assert made.precision == torch.float16
    assert made.model.num_features == 128


def test_without_trident(monkeypatch):
    monkeypatch.setitem(sys.modules, "trident", None)
    monkeypatch.delitem(sys.modules, "pathencoder.integrations.trident", raising=False)
    with pytest.raises(MissingExtra, match=r"needs TRIDENT: pip install git"):
        importlib.import_module("pathencoder.integrations.trident")


@pytest.mark.parametrize(
    ("tool", "parts"),
    [
        ("tiatoolbox", ["tiatoolbox"]),
        ("lazyslide", ["lazyslide_models"]),
        ("slide2vec", ["slide2vec"]),
        ("wsidata", ["wsidata"]),
    ],
)
def test_a_missing_tool_is_named_with_the_command(monkeypatch, tool, parts):
    for part in parts:
        monkeypatch.setitem(sys.modules, part, None)
    monkeypatch.delitem(sys.modules, f"pathencoder.integrations.{tool}", raising=False)
    with pytest.raises(MissingExtra, match=f"pip install {tool}"):
        importlib.import_module(f"pathencoder.integrations.{tool}")
