"""Our encoders in LazySlide, and our features in wsidata, on a real slide."""

import lazyslide as zs
import numpy as np
import pytest
from wsidata import open_wsi

import pathencoder
from pathencoder import errors
from pathencoder.integrations import lazyslide as integration
from pathencoder.integrations import wsidata as data


@pytest.fixture(scope="module")
def tiled(slide):
    wsi = open_wsi(str(slide))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, 224, mpp=0.5)
    return wsi


@pytest.fixture(scope="module")
def expected(tiled, encoder):
    images = [found["image"] for found in tiled.ds.tile_images(tile_key="tiles")]
    return encoder.encode([np.asarray(image) for image in images])


def test_an_encoder_as_a_model(tiled, encoder, expected):
    zs.tl.feature_extraction(tiled, integration.EncoderModel(encoder), device="cpu", pbar=False)
    np.testing.assert_allclose(tiled["pathencoder-tiny_tiles"].X, expected, atol=1e-4)


def test_the_bundled_encoders_by_name(tiled, expected):
    integration.register()
    integration.register()  # again: nothing to do
    zs.tl.feature_extraction(
        tiled, "pathencoder-tiny", key_added="by_name", device="cpu", pbar=False
    )
    np.testing.assert_allclose(tiled["by_name"].X, expected, atol=1e-4)
    with pytest.raises(errors.UnknownEncoder, match="nearest"):
        integration.register("pathencoder-tinny")


def test_the_plain_module_works_too(tiled, encoder, expected):
    zs.tl.feature_extraction(
        tiled,
        encoder.as_module(),
        transform=encoder.transform,
        key_added="plain",
        device="cpu",
        pbar=False,
    )
    np.testing.assert_allclose(tiled["plain"].X, expected, atol=1e-4)


@pytest.fixture(scope="module")
def features(slide, encoder):
    return pathencoder.encode_slide(slide, encoder=encoder, progress=False)


def test_our_features_in_wsidata(slide, encoder, features, tmp_path):
    wsi = open_wsi(str(slide))
    assert data.add_features(wsi, features) == "pathencoder-tiny_tiles"
    found = wsi.fetch.features_anndata("pathencoder-tiny")
    np.testing.assert_array_equal(found.X, features.rows)
    np.testing.assert_array_equal(found.obsm["spatial"], features.coords)
    spec = wsi.tile_spec("tiles")
    assert (spec.height, spec.mpp, spec.base_width) == (224, 0.5, 224)
    # wsidata reads our tiles: the same pixels but for the fraction of a pixel that it cannot hold
    tiles = [np.asarray(t["image"]) for t in wsi.ds.tile_images(tile_key="tiles")][::9]
    rows = features.rows[::9]
    again = encoder.encode(tiles)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(again, axis=1)
    assert ((rows * again).sum(1) / norms).min() > 0.99
    zs.tl.feature_aggregation(wsi, "pathencoder-tiny")
    wsi.write(tmp_path / "slide.zarr")
    written = open_wsi(str(slide), store=str(tmp_path / "slide.zarr"))
    np.testing.assert_array_equal(written["pathencoder-tiny_tiles"].X, features.rows)


def test_features_without_the_size_of_the_tiles_are_refused(slide, features):
    import dataclasses

    bare = dataclasses.replace(features, attributes={})
    with pytest.raises(errors.ConfigError, match="do not state tile_px"):
        data.add_features(open_wsi(str(slide)), bare)
    images = dataclasses.replace(features, coords=None, unit="")
    with pytest.raises(errors.ConfigError, match="only features of a slide"):
        data.add_features(open_wsi(str(slide)), images)
