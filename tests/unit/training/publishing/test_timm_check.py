"""What timm's loader gives for a folder, in the words of the card."""

import dataclasses

import numpy as np
import pytest
import small_encoders
from safetensors.numpy import load_file

import pathencoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import read_spec, write_folder
from training.publishing import timm_check
from training.publishing.card_use import use

pytestmark = pytest.mark.full


def folder(tmp_path, kind, **changes):
    encoder = small_encoders.encoder(kind, **changes)
    tile = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    row = encoder.encode([tile], precision="fp32", progress=False)[0]
    state = encoder.network.state_dict()
    place = tmp_path / "encoder"
    write_folder(place, encoder.spec, state, reference_tile=tile, reference_embedding=row)
    return place


def test_the_output_is_the_embedding_of_a_vit(tmp_path):
    place = folder(tmp_path, "vit")
    found, output = timm_check.check(place)
    assert found.same
    assert found.shape == [pathencoder.load_encoder(place).spec.dim]
    timm_check.add_to_reference(place, output)
    reference = load_file(place / "reference.safetensors")
    np.testing.assert_allclose(reference["timm_output"], reference["embedding"], atol=1e-5)
    text = use(read_spec(place), {"timm": dataclasses.asdict(found)}, "me/vit@v1")
    assert "gives the same embedding" in text
    assert 'timm.create_model("hf-hub:me/vit@v1", pretrained=True)' in text


def test_a_network_that_timm_cannot_build_is_said(tmp_path):
    args = {**small_encoders.spec("vit").model_args, "norm_layer": "LayerNorm1e-12"}
    place = folder(tmp_path, "vit", model_args=args)
    found, output = timm_check.check(place)
    assert output is None
    text = use(read_spec(place), {"timm": dataclasses.asdict(found)}, "me/vit")
    assert "timm's own loader cannot build this network: its arguments name layer classes" in text
    assert "timm.create_model" not in text


def test_a_folder_without_a_reference_is_refused(tmp_path):
    place = folder(tmp_path, "vit")
    (place / "reference.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no reference\.safetensors"):
        timm_check.check(place)
