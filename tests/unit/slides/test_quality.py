"""The quality of tiles on made-up blurred, folded and inked tiles of a package picture."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pathencoder.slides import quality
from pathencoder.slides.quality import Quality, columns_of, quality_of
from pathencoder.slides.tissue import PEN, TissueMask

pytest.importorskip("skimage")


@pytest.fixture(params=[(100, 100), (0, 250), (280, 280)], ids=["gland", "stroma", "both"])
def tile(request):
    from skimage import data

    y, x = request.param
    return np.ascontiguousarray(data.immunohistochemistry()[y : y + 224, x : x + 224])


def blurred(tile, sigma):
    return np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(sigma)))


def test_blur_grows_with_the_blur_and_is_in_micrometres(tile):
    found = [quality_of(blurred(tile, sigma), 0.5).blur for sigma in (0, 1, 2, 3, 5)]
    assert all(after > 1.3 * before for before, after in itertools.pairwise(found))
    assert found[3] == pytest.approx(0.5 * 3 * np.sqrt(2), rel=0.25)  # tissue is no white noise
    assert quality_of(blurred(tile, 2), 1.0).blur == pytest.approx(2 * found[2])


def test_blur_does_not_follow_contrast_or_noise(tile):
    sharp, soft = quality_of(tile, 0.5).blur, quality_of(blurred(tile, 3), 0.5).blur
    pale = (128 + 0.4 * (tile.astype(float) - 128)).astype(np.uint8)
    assert quality_of(pale, 0.5).blur == pytest.approx(sharp, rel=0.05)
    noise = np.random.default_rng(0).normal(0, 3, tile.shape)
    noisy = (blurred(tile, 3) + noise).clip(0, 255).astype(np.uint8)
    assert sharp * 1.3 < quality_of(noisy, 0.5).blur < soft


def test_tissue_that_lies_double_is_higher_in_folds_and_not_in_blur(tile):
    double = (255 * (tile / 255) * np.roll(tile / 255, 60, axis=0)).astype(np.uint8)
    one, two = quality_of(tile, 0.5), quality_of(double, 0.5)
    assert two.fold > one.fold + 0.3
    assert two.blur == pytest.approx(one.blur, rel=0.1)


def test_a_tile_without_contrast_has_no_blur():
    glass = np.full((224, 224, 3), 243, np.uint8)
    assert np.isnan(quality_of(glass, 0.5).blur)
    assert quality_of(glass, 0.5).fold < -0.9
    assert np.isnan(quality_of(glass[:4, :4], 0.5).blur)


def test_values_survive_the_journal():
    assert Quality.unpack(Quality(0.5, -0.25).pack()) == (0.5, -0.25)
    assert np.isnan(quality.UNKNOWN).all()


@pytest.mark.parametrize("most", [1, 5, 10**6])
def test_columns_are_those_of_each_tile(monkeypatch, most):
    monkeypatch.setattr(quality, "_MOST_SHARES", most)
    mask, ink = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    mask[:, :10], ink[5:, 20:] = True, True
    found = TissueMask(mask, (0, 0), (10.0, 10.0), dropped={PEN: ink})
    corners = np.array([[0, 0], [50, 100], [200, 0], [200, 100], [0, 100]])
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    columns = columns_of(values, corners, 100.0, tissue=found, pen=found)
    assert list(columns) == list(quality.COLUMNS)
    assert columns["tissue"] == pytest.approx([1, 0.5, 0, 0, 1])
    assert columns["qc_pen"] == pytest.approx([0, 0, 0.5, 1, 0])
    assert columns["qc_blur"].tolist() == [0, 2, 4, 6, 8]
    assert columns["qc_fold"].tolist() == [1, 3, 5, 7, 9]
    assert {values.dtype for values in columns.values()} == {np.dtype(np.float32)}
