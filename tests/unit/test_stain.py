import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED
from synthetic_nuclei import tissue

from pathencoder import stain
from pathencoder.errors import ConfigError, ImageError
from pathencoder.images import open_image


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
    np.testing.assert_allclose(
        stain.optical_density(image)[0, 0], (0, np.log10(255), np.log10(10.2)), rtol=1e-6
    )
    with pytest.raises(ImageError, match="float64"):
        stain.optical_density(np.zeros((2, 2, 3)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 0.7), st.floats(0.1, 0.7)), min_size=1, max_size=20),
    st.sampled_from([stain.HE, stain.H_DAB]),
)
def test_separation_recovers_amounts(amounts, names):
    found = stain.separate(mixed(np.array(amounts), names), names)[:, 0]
    np.testing.assert_allclose(found, amounts, atol=0.03)


@pytest.mark.full
def test_three_stains_agree_with_scikit_image():
    from skimage import color

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
        cosine = (
            vector
            @ stain.VECTORS[name]
            / np.linalg.norm(vector)
            / np.linalg.norm(stain.VECTORS[name])
        )
        assert cosine > 0.99


@pytest.mark.parametrize("value", [0, 128, 255])
def test_macenko_of_a_uniform_image_is_none(value):
    assert stain.macenko(np.full((40, 40, 3), value, np.uint8)) is None


@pytest.mark.full
def test_otsu_agrees_with_scikit_image():
    from skimage import filters

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
        (tissue(stain="ihc", positive=0.3)[0], "ihc"),
        (np.repeat(textured(stain.HE, (0.6, 0.8))[..., :1], 3, -1), "grey"),
        (
            np.kron(
                (np.random.default_rng(0).random((16, 16, 1)) > 0.8) * 120 + 8, np.ones((4, 4, 3))
            ).astype(np.uint8),
            "fluorescence",
        ),
    ],
)
def test_guess(image, kind):
    found = stain.guess_stain(image)
    assert found.stain == kind
    assert found.decided
    assert 0.5 <= found.confidence <= 1


def toned(*amounts):
    """An image of hematoxylin cells on a ground of other stains, by (OD of r, g, b) each."""
    cells = np.kron(np.random.default_rng(0).random((32, 32, 1)) > 0.6, np.ones((8, 8, 1)))
    ground, cell = (np.array(a) for a in amounts)
    density = np.where(cells > 0, cell, ground) + np.random.default_rng(1).normal(
        0, 0.02, (256, 256, 1)
    )
    return np.clip(255 * 10**-density, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        tissue(stain="ihc", positive=0.0)[
            0
        ],  # blue only: a marker without positive cells, or Giemsa
        toned((0.02, 0.15, 0.45), (0.03, 0.3, 0.8)),  # yellow: picrosirius, mucicarmine
        toned((0.5, 0.1, 0.3), (0.6, 0.3, 0.5)),  # green: Grocott
        np.clip(toned((0.02, 0.03, 0.03), (0.14, 0.12, 0.06)), 0, 255),  # very pale
    ],
    ids=["blue", "yellow", "green", "pale"],
)
def test_ambiguous_colours_are_assumed_to_be_he(image):
    found = stain.guess_stain(image)
    assert (found.stain, found.decided) == ("he", False)
    assert found.text == "cannot tell, taken as H&E"


def test_a_little_brown_on_blue_is_guessed_as_ihc():
    image, labels, _ = tissue((320, 400), nuclei=70, stain="ihc", positive=0.0)
    y, x = np.argwhere(labels == 1).mean(0).astype(int)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255 * 10 ** -np.multiply(0.8, stain.VECTORS["dab"])
    found = stain.guess_stain(image)
    assert (found.stain, found.decided) == ("ihc", False)
    assert found.text == "cannot tell, taken as IHC"


def test_salmon_and_grey_are_not_guessed_as_ihc():
    # H&E with a tint
    assert stain.guess_stain(toned((0.13, 0.3, 0.3), (0.55, 0.55, 0.5))).stain == "he"


def test_few_stained_pixels_are_not_blank():
    image = np.full((900, 1400, 3), 250, np.uint8)
    image[:160, :200] = tissue(nuclei=40, stain="ihc", positive=0.5)[0]
    assert stain.guess_stain(image).stain != "blank"


def test_a_guess_as_text():
    assert stain.StainGuess("ihc", 0.999).text == "IHC (99 % sure)"
    assert stain.StainGuess("he", 1.0, given=True).text == "H&E (as given)"
    assert stain.StainGuess("blank", 1.0).text == "blank"


LYMPHOMA = SHARED / "data/tiles/lymphoma_iicbu"


@pytest.mark.skipif(not LYMPHOMA.is_dir(), reason="the labelled tiles are not here")
def test_he_of_tinted_pictures_is_not_guessed_as_ihc():
    files = sorted(LYMPHOMA.rglob("*.webp"))[::10]
    guesses = [stain.guess_stain(open_image(f)) for f in files]
    assert sum(g.stain == "ihc" and g.decided for g in guesses) <= 0.03 * len(files)
    assert sum(g.stain == "ihc" for g in guesses) <= 0.05 * len(files)


@pytest.mark.full
def test_guess_of_a_real_ihc_image():
    from skimage import data

    found = stain.guess_stain(data.immunohistochemistry())
    assert found.stain == "ihc"
    assert found.confidence > 0.9
