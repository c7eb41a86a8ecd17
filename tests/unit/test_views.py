"""`views`: rows do not depend on how the tile is turned, maps lie where the tile is."""

import numpy as np
import pytest
from small_encoders import encoder, picture, shared

from pathencoder import views
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError, ImageError
from pathencoder.runtime import Runner

SHAPES = [(64, 64), (81, 72), (33, 90)]  # of the input size; odd differences to it; smaller


def turns(image):
    return [np.rot90(image, quarters).copy() for quarters in range(4)]


def difference(rows):
    """The largest distance from the first row, relative to its length."""
    return np.linalg.norm(rows - rows[0], axis=1).max() / np.linalg.norm(rows[0])


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mpp", [None, 0.4])
def test_rows_do_not_depend_on_the_turn(kind, shape, mpp):
    for enc in (shared(kind), encoder(kind, resize="shortest")):
        images = turns(picture(1, *shape))
        assert difference(enc.encode(images, mpp=mpp)) > 1e-3
        assert difference(enc.encode(images, mpp=mpp, views=4)) < 1e-5
        both = [*images, *turns(picture(1, *shape)[:, ::-1])]
        assert difference(enc.encode(both, mpp=mpp, views=4)) > 1e-3
        assert difference(enc.encode(both, mpp=mpp, views=8)) < 1e-5


def test_a_row_is_the_mean_over_the_turned_images():
    enc, images = shared("cnn"), [picture(seed, 70, 90) for seed in range(9)]
    each = np.mean([enc.encode([np.rot90(i, q) for i in images]) for q in range(4)], axis=0)
    np.testing.assert_allclose(enc.encode(images, views=4), each, rtol=1e-4, atol=1e-4)
    for size in (1, 2, 5):
        found = enc.encode(images, views=4, batch_size=size)
        np.testing.assert_allclose(found, each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("number", [4, 8])
def test_maps_turn_with_the_image(kind, number):
    enc, image = shared(kind), picture(1)
    upright = enc.encode(image, output="dense", views=number)[0]
    assert np.ptp(upright) > 1
    for quarters, one in enumerate(turns(image)):
        found = enc.encode(one, output="dense", views=number)[0]
        np.testing.assert_allclose(
            found, np.rot90(upright, quarters, (1, 2)), rtol=1e-4, atol=1e-4 * np.abs(upright).max()
        )


@pytest.mark.parametrize("view", range(8))
def test_a_map_is_laid_back_over_its_image(view):
    import torch

    image = picture(2, 5, 5)
    map_of_view = torch.from_numpy(views.turned(image, view).copy()).permute(2, 0, 1)[None]
    assert np.array_equal(views.turned_back(map_of_view, view)[0].permute(1, 2, 0), image)


@pytest.mark.full
def test_an_exported_file_reads_the_views_too():
    enc = load_encoder(device="cpu")  # the bundled one, with its ONNX file
    image = picture(1, 260, 224)
    rows = [enc.encode(image, views=4, runtime=runtime)[0] for runtime in ("torch", "onnx")]
    assert difference(np.stack(rows)) < 1e-4
    assert difference(enc.encode(turns(image), views=4, runtime="onnx")) < 1e-5


def test_every_view_costs_one_pass(monkeypatch):
    seen, real = [], Runner._forward
    monkeypatch.setattr(
        Runner, "_forward", lambda self, pixels: seen.append(len(pixels)) or real(self, pixels)
    )
    for number in views.VIEWS:
        seen.clear()
        shared("cnn").encode([picture(seed) for seed in range(6)], views=number)
        assert sum(seen) == 6 * number


def test_a_bad_image_costs_only_its_row():
    images = [picture(0), np.zeros((4, 4, 7), np.uint8), picture(2)]
    with pytest.warns(UserWarning, match="1 of 3 images"):
        rows = shared("cnn").encode(images, views=4, on_error="nan")
    assert np.isnan(rows[1]).all()
    np.testing.assert_array_equal(rows[2], shared("cnn").encode(images[2:], views=4)[0])
    with pytest.raises(ImageError):
        shared("cnn").encode(images, views=4)


@pytest.mark.parametrize("number", [0, 2, 3, -4, True, 4.0, "4", None])
def test_other_numbers_are_refused(number):
    with pytest.raises(ConfigError, match=r"views=.*: 1 .*, 4 .* or 8"):
        shared("cnn").encode(picture(), views=number)
