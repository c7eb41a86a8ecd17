"""Classes of cells at points: crops, the linear head on them, what is saved, bad input."""

import dataclasses

import numpy as np
import pytest
import small_encoders

from pathencoder.errors import ConfigError, HeadMismatch
from pathencoder.heads.dense.cells import CellClasses, CellOptions, crops
from pathencoder.heads.dense.model import Labelled

pytestmark = pytest.mark.full
NAMES = ("brown", "none", "blue")
COLOURS = ((120, 70, 40), None, (90, 110, 170))
OPTIONS = CellOptions(sizes_um=(8.0, 16.0))


def scene(seed=0, side=128, mpp=0.5):
    """Brown and blue disks on a light ground, with their centres and classes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.full((side, side, 3), 225.0)
    points, numbers = [], []
    for cy in range(4, side, 24):
        for cx in range(4, side, 24):
            number = 2 * int(rng.integers(2))
            image[(y - cy) ** 2 + (x - cx) ** 2 <= 49] = COLOURS[number]
            points.append((cx, cy))
            numbers.append(number)
    image = np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    centres = np.array(points, float)
    return Labelled(image, centres, mpp, "he", f"p{seed % 3}", np.array(numbers), NAMES)


def right(labels, image):
    return np.mean([NAMES[n] == label for n, label in zip(image.classes, labels, strict=True)])


@pytest.fixture(scope="module")
def fitted():
    return CellClasses.fit(small_encoders.shared("cnn"), [scene(s) for s in range(3)], OPTIONS)


def test_the_cells_of_another_image_are_classified(fitted):
    new = scene(7)
    labels, probabilities = fitted.predict(new.image, new.truth, new.mpp)
    assert fitted.classes == ("brown", "blue")  # of the third there is no cell
    assert right(labels, new) > 0.95
    assert probabilities.shape == (len(new.truth), 2)
    assert np.allclose(probabilities.sum(1), 1)
    assert labels == [fitted.classes[i] for i in probabilities.argmax(1)]


def test_a_height_beside_the_points_is_not_read(fitted):
    new = scene(7)
    high = np.c_[new.truth, np.full(len(new.truth), 0.4)]
    assert fitted.predict(new.image, high, 0.5)[0] == fitted.predict(new.image, new.truth, 0.5)[0]


def test_an_image_at_another_scale(fitted):
    new = scene(7)
    large = new.image.repeat(2, 0).repeat(2, 1)
    labels, _ = fitted.predict(large, new.truth * 2 + 0.5, 0.25)
    assert right(labels, new) > 0.95


def test_no_points(fitted):
    labels, probabilities = fitted.predict(scene().image, np.zeros((0, 3)), 0.5)
    assert (labels, probabilities.shape) == ([], (0, 2))


def test_what_is_saved_predicts_the_same(fitted):
    arrays, about = fitted.to_arrays()
    again = CellClasses.from_arrays(arrays, about, fitted.encoder)
    new = scene(7)
    assert np.array_equal(
        again.predict(new.image, new.truth, 0.5)[1], fitted.predict(new.image, new.truth, 0.5)[1]
    )
    assert again.notes == fitted.notes


def test_another_encoder_is_refused(fitted):
    arrays, about = fitted.to_arrays()
    with pytest.raises(HeadMismatch, match="small-vit"):
        CellClasses.from_arrays(arrays, about, small_encoders.shared("vit"))


def test_the_point_is_in_the_middle_of_its_crop():
    image = np.zeros((40, 50, 3), np.uint8)
    image[7, 31] = 255
    for side in (5, 9):
        (crop,) = crops(image, np.array([[31.0, 7.0]]), side)
        assert crop.shape == (side, side, 3)
        assert crop[side // 2, side // 2, 0] == 255
    (even,) = crops(image, np.array([[30.5, 6.5]]), 4)
    assert even[2, 2, 0] == 255


def test_a_crop_at_the_corner_is_mirrored():
    image = small_encoders.picture(height=40, width=50)
    (crop,) = crops(image, np.array([[-0.5, -0.5]]), 8)
    assert np.array_equal(crop[4:, 4:], image[:4, :4])
    assert np.array_equal(crop[:4, 4:], image[3::-1, :4])


def test_points_outside_the_image_are_refused(fitted):
    image = scene().image
    fitted.predict(image, np.array([[128.0, 0.0]]), 0.5)  # rounding
    with pytest.raises(ConfigError, match=r"1 of 2 points .* first at \(400, 3\)"):
        fitted.predict(image, np.array([[5.0, 5.0], [400.0, 3.0]]), 0.5)


def test_cells_of_no_known_class_are_counted():
    images = [scene(s) for s in range(3)]
    images[0].classes[:4] = -1
    found = CellClasses.fit(small_encoders.shared("cnn"), images, OPTIONS)
    assert "4 cells of no known class were not learned from" in found.notes


def test_cells_are_drawn_evenly_over_the_images():
    images = [scene(s) for s in range(4)]
    few = CellOptions(sizes_um=(8.0,), per_class=8)
    found = CellClasses.fit(small_encoders.shared("cnn"), images, few)
    assert found.settings["cells"] == 16
    blue = sum(int((x.classes == 2).sum()) for x in images)
    assert any(f"blue 8 of {blue}" in note for note in found.notes)


def test_a_class_of_one_patient_is_fitted_without_folds():
    images = [scene(s) for s in range(2)]
    images[0].classes[:] = 2
    found = CellClasses.fit(small_encoders.shared("cnn"), images, OPTIONS)
    assert any("one group alone" in note for note in found.notes)
    assert found.temperature == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.full(36, 2)}, "blue found, two or more"),
        ({"classes": np.zeros(37, int)}, "36 points and 37 classes"),
        ({"classes": np.full(36, 3)}, "a cell of class 3, and 3 classes"),
        ({"classes": None}, "none found"),
    ],
)
def test_bad_classes_are_refused(change, message):
    image = dataclasses.replace(scene(), **change)
    with pytest.raises(ConfigError, match=message):
        CellClasses.fit(small_encoders.shared("cnn"), [image], OPTIONS)


def test_images_that_name_other_classes_are_refused():
    other = dataclasses.replace(scene(1), names=("blue", "none", "brown"))
    with pytest.raises(ConfigError, match="image 1 names the classes blue"):
        CellClasses.fit(small_encoders.shared("cnn"), [scene(), other], OPTIONS)


@pytest.mark.parametrize("bad", [{"sizes_um": ()}, {"sizes_um": (0.0,)}, {"per_class": 1}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigError):
        CellOptions(**bad)
