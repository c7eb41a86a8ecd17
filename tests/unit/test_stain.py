import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathencoder import stain
from pathencoder.errors import ConfigError, ImageError


def mixed(amounts, names):
    """uint8 image [N, 1, 3] of given stain amounts [N, S]."""
    unit = np.array([stain.VECTORS[n] for n in names])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.clip(np.rint(255 * 10 ** -(amounts @ unit)), 0, 255).astype(np.uint8)[:, None]


def textured(names, weights, seed=0):
    """A tissue-like image: smooth patches of stains."""
    rng = np.random.default_rng(seed)
    field = np.kron(rng.random((16, 16, len(names))), np.ones((8, 8, 1))) * weights
    return mixed(field.reshape(-1, len(names)), names).reshape(128, 128, 3)


def test_optical_density_of_known_levels():
    image = np.array([[[255, 0, 25]]], np.uint8)
    np.testing.assert_allclose(stain.optical_density(image)[0, 0], (0, np.log10(255), np.log10(10.2)), rtol=1e-6)
    with pytest.raises(ImageError, match="float64"):
        stain.optical_density(np.zeros((2, 2, 3)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 0.7), st.floats(0.1, 0.7)), min_size=1, max_size=20), st.sampled_from([stain.HE, stain.H_DAB]))
def test_separation_recovers_amounts(amounts, names):
    found = stain.separate(mixed(np.array(amounts), names), names)[:, 0]
    np.testing.assert_allclose(found, amounts, atol=0.03)


@pytest.mark.full
def test_three_stains_agree_with_scikit_image():
    color = pytest.importorskip("skimage.color")
    image = np.random.default_rng(0).integers(20, 255, (20, 20, 3)).astype(np.uint8)
    matrix = np.linalg.inv(color.rgb_from_hed)
    theirs = stain.optical_density(image) @ matrix
    lengths = np.linalg.norm(color.rgb_from_hed, axis=1)
    np.testing.assert_allclose(stain.separate(image, stain.HED), theirs * lengths, atol=0.03)


def test_unknown_or_doubled_stains_are_refused():
    with pytest.raises(ConfigError, match="one to three"):
        stain.separate(np.zeros((2, 2, 3), np.uint8), ("hematoxylin", "hematoxylin"))
    with pytest.raises(ConfigError, match="pas"):
        stain.unmixing(("pas",))


def test_macenko_finds_the_vectors_of_a_mixture():
    rng = np.random.default_rng(0)
    amounts = rng.dirichlet((0.3, 0.3), 5000) * rng.uniform(0.6, 1.2, (5000, 1))
    found = stain.macenko(mixed(amounts, stain.HE))
    for vector, name in zip(found, stain.HE, strict=True):
        cosine = vector @ stain.VECTORS[name] / np.linalg.norm(vector) / np.linalg.norm(stain.VECTORS[name])
        assert cosine > 0.99


@pytest.mark.parametrize("value", [0, 128, 255])
def test_macenko_of_a_uniform_image_is_none(value):
    assert stain.macenko(np.full((40, 40, 3), value, np.uint8)) is None


@pytest.mark.full
def test_otsu_agrees_with_scikit_image():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(0, 1, 5000), rng.normal(6, 1, 1000))
    assert stain.otsu(values) == pytest.approx(filters.threshold_otsu(values), abs=0.1)


def test_otsu_separates_two_levels():
    assert 0 < stain.otsu(np.array([0.0] * 90 + [1.0] * 10)) < 1


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.full((64, 64, 3), 245, np.uint8), "blank"),
        (np.full((64, 64, 3), 0, np.uint8), "blank"),
        (textured(stain.HE, (0.6, 0.8)), "he"),
        (textured(stain.H_DAB, (0.4, 0.9)), "ihc"),
        (np.repeat(textured(stain.HE, (0.6, 0.8))[..., :1], 3, -1), "grey"),
        (np.kron((np.random.default_rng(0).random((16, 16, 1)) > 0.8) * 120 + 8, np.ones((4, 4, 3))).astype(np.uint8), "fluorescence"),
    ],
)
def test_guess(image, kind):
    found = stain.guess_stain(image)
    assert found.stain == kind
    assert 0.5 <= found.confidence <= 1


@pytest.mark.full
def test_guess_of_a_real_ihc_image():
    data = pytest.importorskip("skimage.data")
    found = stain.guess_stain(data.immunohistochemistry())
    assert found.stain == "ihc"
    assert found.confidence > 0.9
