"""Decoders of segmentation-models-pytorch: shapes, reloads, and what does not fit."""

import sys

import labelled_tissue
import numpy as np
import pytest
import small_encoders
import torch
from synthetic_nuclei import tissue

import pathencoder
from pathencoder import compat
from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.heads.dense.decoder import DecoderShape
from pathencoder.heads.dense.network import DenseNetwork
from pathencoder.heads.dense.smp import DECODERS, OURS, SmpDecoder

pytestmark = pytest.mark.full
QUICK = {"steps": 2, "batch": 2, "side": 64, "progress": False, "mpp": labelled_tissue.MPP}
THEIRS = [name for name in DECODERS if name != OURS]


def needs_smp():
    compat.import_timm()  # the package imports torchvision
    pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return labelled_tissue.folder(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", THEIRS)
def test_the_result_has_the_size_of_ours(name, stride):
    needs_smp()
    image, extra = torch.zeros(2, 3, 64, 96), torch.zeros(2, 1, 64, 96)
    sizes = []
    for decoder in (OURS, name):
        network = DenseNetwork(
            small_encoders.shared("cnn"), 2, extra=1, stride=stride, decoder=decoder
        )
        sizes.append(network.eval()(image, extra).shape)
    assert sizes[0] == sizes[1] == (2, 2, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["unet", "fpn-smp"])
def test_an_encoder_without_a_map_at_stride_2(name):
    needs_smp()
    shape = DecoderShape((8, 16, 24, 32), (4, 8, 16, 32), outputs=1)
    maps = [
        torch.zeros(2, c, 64 // s, 64 // s)
        for c, s in zip(shape.channels, shape.strides, strict=True)
    ]
    assert SmpDecoder(name, shape)(maps, torch.zeros(2, 3, 64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_reload_gives_the_same_numbers(pictures, tmp_path, frozen):
    needs_smp()
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "encoder")
    encoder = pathencoder.load_encoder(tmp_path / "encoder", device="cpu")
    head = pathencoder.fit("nuclei", encoder, pictures, decoder="unet", frozen=frozen, **QUICK)
    image = tissue((96, 96), nuclei=8, radius=7, seed=9)[0]
    head.save(tmp_path / "head")
    again = pathencoder.load_head(tmp_path / "head", device="cpu")
    assert again.settings["decoder"] == "unet"
    assert isinstance(again.model.network.decoder, SmpDecoder)
    mpp = labelled_tissue.MPP
    assert np.array_equal(
        head.model.probabilities(image, mpp), again.model.probabilities(image, mpp)
    )


def test_heads_of_before_have_our_decoder(pictures, tmp_path):
    head = pathencoder.fit("nuclei", small_encoders.shared("cnn"), pictures, **QUICK)
    assert head.settings.pop("decoder") == OURS
    head.save(tmp_path / "head")
    pathencoder.load_head(tmp_path / "head", device="cpu").predict(
        tissue((96, 96), nuclei=8, radius=7, seed=9)[0], mpp=0.5
    )


def test_what_does_not_fit_is_refused(pictures, monkeypatch):
    cnn = small_encoders.shared("cnn")
    with pytest.raises(ConfigError, match=r"decoder='resunet'.*one of fpn, unet, "):
        pathencoder.fit("nuclei", cnn, pictures, decoder="resunet", **QUICK)
    needs_smp()
    with pytest.raises(ConfigError, match="side=100: this decoder takes multiples of 32, as 96"):
        pathencoder.fit("nuclei", cnn, pictures, decoder="unet", **{**QUICK, "side": 100})
    with pytest.raises(ConfigError, match=r"'unet' needs maps of strides .* leave decoder= out"):
        pathencoder.fit("nuclei", small_encoders.shared("vit"), pictures, decoder="unet", **QUICK)
    for module in [name for name in sys.modules if name.startswith("segmentation_models_pytorch")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtra, match="pip install segmentation-models-pytorch"):
        pathencoder.fit("nuclei", cnn, pictures, decoder="unet", **QUICK)
