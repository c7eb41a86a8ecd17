"""A repository's config fills in what the catalogue does not know."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

import pathencoder
from pathencoder import network
from pathencoder.pretrained.catalogue import catalogue
from pathencoder.pretrained.upstream_config import with_preprocessing
from pathencoder.spec import EncoderSpec

CONFIG = {
    "architecture": "vit_small_patch16_224",
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
    },
}


SMALL = dict(img_size=32, embed_dim=48, depth=1, num_heads=3)


def test_a_copys_config_does_not_replace_the_authors_normalisation(caplog):
    row = catalogue()["lunit-vits16"]
    with caplog.at_level(logging.WARNING, logger="pathencoder"):
        read = with_preprocessing(row, CONFIG)
    assert (read.mean, read.std) == (row.mean, row.std)
    assert (read.interpolation, read.resize_size) == ("bilinear", 248)
    assert "lunit-vits16: config.json of its repository has mean (0.5, 0.5, 0.5)" in caplog.text


def test_unknown_normalisation_is_read_without_a_remark(caplog):
    nan = (float("nan"),) * 3
    row = dataclasses.replace(catalogue()["lunit-vits16"], mean=nan, std=nan)
    with caplog.at_level(logging.WARNING, logger="pathencoder"):
        assert with_preprocessing(row, CONFIG).mean == (0.5, 0.5, 0.5)
    assert not caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        dict(model_args={**SMALL, "num_classes": 7}, dim=7),
        dict(model_args=SMALL, dim=768, layout="keep"),
    ],
    ids=["projection", "keep"],
)
def test_a_projection_is_saved_and_loaded(fields, tmp_path):
    spec = EncoderSpec(
        name="small",
        architecture="vit_tiny_patch16_224",
        width=48,
        input_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        prefix_tokens=1,
        embedding="head",
        **fields,
    )
    torch.manual_seed(0)
    encoder = pathencoder.Encoder(network.create(spec, random=True), spec)
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    row = encoder.encode(tile, progress=False)
    assert row.shape == (1, spec.dim)
    encoder.save_pretrained(tmp_path / "small")
    again = pathencoder.load_encoder(tmp_path / "small")
    np.testing.assert_allclose(again.encode(tile, progress=False), row, atol=1e-6)
