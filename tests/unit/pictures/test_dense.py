"""Pictures of dense features: colours, similarity, marks, scale bars and panels."""

import numpy as np
import pytest
import small_encoders

from pathencoder import pictures
from pathencoder.errors import ConfigError
from pathencoder.pictures import panels


def two_halves():
    image = np.full((96, 128, 3), 240, np.uint8)
    image[:, 64:] = small_encoders.picture(1, 96, 64)
    return image


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_features_separate_two_textures(kind):
    image = two_halves()
    features = pictures.dense_map(small_encoders.shared(kind), image)
    assert features.ndim == 3
    assert features.shape[1] > features.shape[0] >= 4
    assert np.abs(features.mean(axis=(0, 1))).max() < 1e-3
    row, column = pictures.cell_of(features, image, 110, 48)
    cosine = pictures.likeness(features, row, column)
    middle = cosine.shape[1] // 2
    assert cosine[:, middle + 1 :].mean() > cosine[:, : middle - 1].mean() + 0.3
    assert cosine.max() <= 1 + 1e-5


def test_a_rotated_image_gives_the_rotated_map():
    encoder = small_encoders.shared("cnn")
    image = small_encoders.picture(3, 96, 96)
    straight, turned = (
        pictures.dense_map(encoder, image),
        pictures.dense_map(encoder, np.rot90(image).copy()),
    )
    assert np.abs(np.rot90(straight) - turned).mean() < 0.02 * straight.std()


def test_pca_gives_equal_colours_to_equal_features_and_keeps_its_signs():
    features = np.zeros((6, 8, 5), np.float32)
    features[:, 4:] = (1, 2, 0, 1, 3)
    features[3:] += (0, 1, -1, 2, 0)
    colours = pictures.pca_colours(features)
    assert (colours.dtype, colours.shape) == (np.uint8, (6, 8, 3))
    assert (colours[:3, :4] == colours[0, 0]).all()
    assert (colours[:3, 4:] == colours[0, 4]).all()
    assert np.abs(colours[0, 0].astype(int) - colours[0, 4]).max() > 60
    assert np.array_equal(colours, pictures.pca_colours(features.copy()))


@pytest.mark.parametrize("point", [(-1, 5), (128, 5), (5, 96)])
def test_a_point_outside_is_refused(point):
    with pytest.raises(ConfigError, match="outside the image, which is 128 x 96"):
        pictures.cell_of(np.zeros((4, 4, 2), np.float32), two_halves(), *point)


def test_cells_follow_the_image():
    features = np.zeros((4, 8, 2), np.float32)
    assert pictures.cell_of(features, two_halves(), 0, 0) == (0, 0)
    assert pictures.cell_of(features, two_halves(), 127, 95) == (3, 7)
    assert pictures.cell_of(features, two_halves(), 64, 24) == (1, 4)


def test_the_mark_is_at_its_point():
    image = two_halves()
    changed = np.argwhere((pictures.mark(image, 40, 30) != image).any(axis=2))
    assert np.abs(changed.mean(axis=0) - (30, 40)).max() < 2
    assert np.array_equal(image, two_halves())


@pytest.mark.parametrize(("mpp", "length"), [(0.5, 10), (0.25, 5), (2.0, 50)])
def test_the_scale_bar_has_its_length(mpp, length):
    image = np.full((96, 128, 3), 200, np.uint8)
    changed = pictures.with_scale_bar(image, mpp)
    bar = (changed[96 - 14 + 2] == 0).all(axis=1)
    assert bar.sum() == pytest.approx(length / mpp, abs=2)


def test_panels_stand_side_by_side_whole():
    image = two_halves()
    page = np.asarray(
        pictures.side_by_side(
            [pictures.Panel(image, "A"), pictures.Panel(image, "B", "below", (0.0, 1.0))], "Title"
        )
    )
    found = [
        x
        for x in range(page.shape[1] - 127)
        if np.array_equal(page[104 : 104 + 96, x : x + 128], image)
    ]
    assert len(found) == 2
    assert page.shape[2] == 3


@pytest.mark.parametrize("size", [(30, 20), (200, 12), (12, 200)])
def test_labels_of_small_pictures_do_not_overlap(size):
    """Two panels with the same long words.

    As wide as these, and the words of one end before the other's begin.
    """
    image = np.full((*size, 3), 200, np.uint8)
    panel = pictures.Panel(
        image, "A title that is long", "And a caption that is longer than the title", (0.0, 1.0)
    )
    one, two = (np.asarray(pictures.side_by_side([panel] * n, "T")) for n in (1, 2))
    column = one.shape[1] - 2 * panels._GAP
    assert two.shape[1] == 2 * column + 3 * panels._GAP
    assert np.array_equal(
        two[50:, panels._GAP + column : 2 * panels._GAP + column],
        np.full_like(two[50:, : panels._GAP], 255),
    )
    assert (one[:, -panels._GAP :] == 255).all()


def test_what_the_font_does_not_have_is_not_drawn_as_a_box():
    assert panels._printed("5 µm 组织") == "5 ?m ??"
