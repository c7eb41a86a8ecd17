"""Our encoders in tiatoolbox's engines, on a real slide."""

import numpy as np
import pytest
import torch
import zarr
from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.wsicore.wsireader import WSIReader
from torch import nn

from pathencoder.integrations.tiatoolbox import EncoderModel


@pytest.fixture(scope="module")
def patches(slide):
    """uint8 [10, 224, 224, 3], read by tiatoolbox."""
    reader = WSIReader.open(slide)
    return np.stack(
        [
            reader.read_rect((200 * i, 224 * i), (224, 224), resolution=0.5, units="mpp")
            for i in range(10)
        ]
    )


def features(model, patches):
    engine = DeepFeatureExtractor(model=model, batch_size=4)  # 4 + 4 + 2
    config = model.io_config()
    config.patch_input_shape = patches.shape[1:3]
    found = engine.run(list(patches), patch_mode=True, ioconfig=config, output_type="dict")
    return np.asarray(found["features"])


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_features_of_patches_equal_encode(encoder, patches):
    rows = features(EncoderModel(encoder), patches)
    np.testing.assert_allclose(rows, encoder.encode(patches), atol=1e-4)


def test_patches_of_another_size_are_resized_as_by_the_encoder(encoder, patches):
    larger = patches.repeat(2, axis=1).repeat(2, axis=2)
    rows = features(EncoderModel(encoder), larger)
    np.testing.assert_allclose(rows, encoder.encode(larger), atol=1e-4)


def test_features_of_a_slide_equal_encode_of_what_tiatoolbox_reads(encoder, slide, tmp_path):
    model = EncoderModel(encoder)
    engine = DeepFeatureExtractor(model=model, batch_size=16)
    engine.run(
        [slide],
        patch_mode=False,
        ioconfig=model.io_config(),
        save_dir=tmp_path / "out",
        output_type="zarr",
    )
    store = zarr.open(next((tmp_path / "out").rglob("*.zarr")), mode="r")
    rows, places = store["features"][:], store["coordinates"][:]
    assert rows.shape == (len(places), encoder.dim)
    assert len(rows) > 50
    reader = WSIReader.open(slide)
    width, height = reader.slide_dimensions(resolution=0.5, units="mpp")
    # read_rect pads at the edge otherwise than the engine does
    inside = np.flatnonzero((places[:, 2] < width) & (places[:, 3] < height))
    some = inside[::9]
    assert len(some) > 3
    tiles = [
        reader.read_rect(
            tuple(places[i][:2]), (224, 224), resolution=0.5, units="mpp", coord_space="resolution"
        )
        for i in some
    ]
    assert cosine(rows[some], encoder.encode(tiles)).min() > 0.9999


def test_classes_of_a_head(encoder, slide, patches, tmp_path):
    torch.manual_seed(0)
    head = nn.Linear(encoder.dim, 3)
    model = EncoderModel(encoder, head=head, class_dict={0: "a", 1: "b", 2: "c"})
    engine = PatchPredictor(model=model, batch_size=4)
    found = engine.run(
        list(patches),
        patch_mode=True,
        ioconfig=model.io_config(),
        output_type="dict",
        return_probabilities=True,
    )
    expected = head(torch.from_numpy(encoder.encode(patches))).softmax(-1).detach().numpy()
    np.testing.assert_allclose(np.asarray(found["probabilities"]), expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found["predictions"]), expected.argmax(1))
    saved = PatchPredictor(model=model, batch_size=16).run(
        [slide],
        patch_mode=False,
        ioconfig=model.io_config(),
        save_dir=tmp_path / "classes",
        output_type="zarr",
    )
    store = zarr.open(next((tmp_path / "classes").rglob("*.zarr")), mode="r")
    assert saved
    assert set(np.unique(store["predictions"][:])) <= {0, 1, 2}


def test_other_outputs(encoder, patches):
    model = EncoderModel(encoder, output="multi")
    rows = features(model, patches)
    assert rows.shape == (10, model.encoder.num_features)
