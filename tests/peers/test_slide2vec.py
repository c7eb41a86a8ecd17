"""Our encoders as presets of slide2vec, found by the entry point, on a real slide."""

import numpy as np
import pytest
import torch
from slide2vec import Model
from slide2vec.encoders.registry import encoder_registry, list_encoder_provider_diagnostics

from pathencoder import errors, load_encoder, open_slide
from pathencoder.integrations import slide2vec as integration
from pathencoder.pretrained import catalogue


def test_the_bundled_encoders_are_presets():
    assert set(catalogue.bundled()) <= set(encoder_registry.names())
    assert not list_encoder_provider_diagnostics()
    info = encoder_registry.info("pathencoder-tiny")
    assert info["input_size"] == 224
    assert info["supported_spacing_um"] == 0.5


def test_both_transforms_give_what_ours_gives_at_the_input_size():
    encoder = load_encoder("pathencoder-tiny", device="cpu")
    made = integration.EncoderModel(encoder)
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    expected = encoder.transform(image)
    torch.testing.assert_close(made.get_transform()(image), expected, rtol=0, atol=0)
    torch.testing.assert_close(
        made.get_normalization_transform()(image), expected, atol=1e-6, rtol=0
    )
    assert made.encode_tiles(expected[None]).shape == (1, made.encode_dim)


def test_other_encoders_by_name():
    integration.register("kaiko-vits16")
    assert encoder_registry.info("kaiko-vits16")["supports_variable_input_size"] is False
    with pytest.raises(errors.UnknownEncoder, match="nearest"):
        integration.register("kaiko-vit16")


def test_a_slide_is_embedded_as_by_encode(slide):
    embedded = Model.from_preset("pathencoder-tiny", device="cpu").embed_slide(str(slide))
    rows = np.asarray(embedded.tile_embeddings)
    assert rows.shape[1] == 768
    assert len(rows) > 50
    encoder = load_encoder("pathencoder-tiny", device="cpu")
    opened = open_slide(slide)
    tiles = [
        opened.read(int(x), int(y), 0, 224, 224)
        for x, y in zip(embedded.x, embedded.y, strict=True)
    ]
    opened.close()
    expected = encoder.encode(tiles)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = (rows * expected).sum(1) / norms
    assert np.median(cosine) > 0.9999
