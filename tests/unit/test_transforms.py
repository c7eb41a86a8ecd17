"""Preprocessing equals that of the encoders' authors; mpp resamples and never stretches."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_encoders import SIZE, picture, spec

from pathencoder import compat, transforms
from pathencoder.errors import ConfigError
from pathencoder.pretrained.catalogue import catalogue
from pathencoder.transforms import Transform

EXAMPLES = settings(max_examples=25, deadline=None)
SIDES = st.integers(1, 200)
SETTINGS = {
    (s.resize, s.interpolation, s.input_size, s.resize_size, s.mean, s.std): s
    for s in catalogue().values()
    if s.mean[0] > 0
}


def torchvision_transform(wanted):
    """The same preprocessing with torchvision, as on the encoders' pages."""
    compat.import_timm()
    from torchvision import transforms as tv

    mode = tv.InterpolationMode(wanted.interpolation)
    size = wanted.input_size
    squash = [tv.Resize((size, size), mode)]
    shortest = [tv.Resize(wanted.resize_size or size, mode), tv.CenterCrop(size)]
    steps = squash if wanted.resize == "squash" else shortest
    return tv.Compose([*steps, tv.ToTensor(), tv.Normalize(wanted.mean, wanted.std)])


@pytest.mark.parametrize("wanted", SETTINGS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("shape", [(256, 256), (224, 224), (300, 211), (97, 160)])
def test_equals_torchvision_on_every_setting_of_the_catalogue(wanted, shape):
    image = picture(1, *shape)
    torch.testing.assert_close(
        Transform(wanted)(image),
        torchvision_transform(wanted)(Image.fromarray(image)),
        rtol=0,
        atol=1e-6,
    )


@EXAMPLES
@given(
    SIDES,
    SIDES,
    st.sampled_from(["squash", "shortest"]),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([None, 64, 73]),
)
def test_equals_torchvision_on_any_shape(height, width, resize, interpolation, resize_size):
    wanted = spec(resize=resize, interpolation=interpolation, resize_size=resize_size)
    image = picture(2, height, width)
    torch.testing.assert_close(
        Transform(wanted)(image),
        torchvision_transform(wanted)(Image.fromarray(image)),
        rtol=0,
        atol=1e-6,
    )


@EXAMPLES
@given(SIDES, SIDES)
def test_the_encoders_own_mpp_never_changes_a_pixel(height, width):
    image = picture(3, height, width)
    found = Transform(spec()).resize(image, 0.5)
    top, left = round((height - SIZE) / 2), round((width - SIZE) / 2)
    kept = image[max(top, 0) : max(top, 0) + SIZE, max(left, 0) : max(left, 0) + SIZE]
    y, x = (SIZE - kept.shape[0]) // 2, (SIZE - kept.shape[1]) // 2
    np.testing.assert_array_equal(found[y : y + kept.shape[0], x : x + kept.shape[1]], kept)
    outside = np.ones((SIZE, SIZE), bool)
    outside[y : y + kept.shape[0], x : x + kept.shape[1]] = False
    assert (found[outside] == 255).all()


@EXAMPLES
@given(SIDES, SIDES, st.floats(0.05, 5), st.sampled_from(["bilinear", "bicubic"]))
def test_mpp_resamples_whole_pixels_then_crops_or_pads(height, width, mpp, interpolation):
    image = picture(4, height, width)
    wanted = spec(interpolation=interpolation)
    to = max(1, round(height * (mpp / 0.5))), max(1, round(width * (mpp / 0.5)))
    mode = Image.Resampling[interpolation.upper()]
    whole = np.asarray(Image.fromarray(image).resize((to[1], to[0]), mode))
    expected = Transform(wanted).resize(whole, 0.5)
    found = Transform(wanted).resize(image, mpp)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "mpp"), [(173, 211, 25), (9000, 400, 0.9), (30, 7001, 2.1)]
)
def test_of_huge_targets_only_the_middle_is_computed_and_is_the_same(
    monkeypatch, height, width, mpp, interpolation
):
    # Noise that a cubic filter keeps inside 0..255: clipped values would depend on the
    # order of Pillow's two passes.
    image = np.random.default_rng(4).integers(64, 192, (height, width, 3), dtype=np.uint8)
    transform = Transform(spec(interpolation=interpolation))
    whole = transform.resize(image, mpp)
    computed = []
    monkeypatch.setattr(transforms, "_WHOLE", 0)
    resample = Transform._resample
    monkeypatch.setattr(
        Transform,
        "_resample",
        lambda self, im, h, w, box: computed.append(h * w) or resample(self, im, h, w, box),
    )
    found = transform.resize(image, mpp)
    assert np.abs(found.astype(int) - whole).max() <= 1
    assert computed[0] <= SIZE * SIZE


def test_shapes_are_never_stretched_by_mpp():
    disc = np.full((256, 128, 3), 255, np.uint8)
    y, x = np.ogrid[:256, :128]
    disc[(y - 128) ** 2 + (x - 64) ** 2 < 40**2] = 0
    dark = Transform(spec()).resize(disc, 0.25)[..., 0] < 128
    assert abs(dark.any(axis=0).sum() - 40) <= 1
    assert abs(dark.any(axis=1).sum() - 40) <= 1


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 0.001, 1000, "0.5"])
def test_scales_that_no_microscope_has_are_refused(mpp):
    with pytest.raises(ConfigError, match="micrometres per pixel"):
        Transform(spec()).resize(picture(), mpp)


def test_encoders_without_a_single_scale():
    ranged = Transform(spec(mpp=None, mpp_range=(0.25, 2.0)))
    image = picture(5, 128, 128)
    # inside the range: unchanged
    np.testing.assert_array_equal(ranged.resize(image, 0.7), image[32:96, 32:96])
    np.testing.assert_array_equal(
        ranged.resize(image, 0.125), Transform(spec(mpp=0.25)).resize(image, 0.125)
    )
    with pytest.raises(ConfigError, match="leave mpp out"):
        Transform(spec(mpp=None)).resize(image, 0.5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("mpp", [None, 0.01, 100])
@pytest.mark.parametrize("resize", ["squash", "shortest"])
def test_extreme_shapes_and_scales_stay_small(shape, mpp, resize):
    x = Transform(spec(resize=resize))(np.full((*shape, 3), 9, np.uint8), mpp)
    assert x.shape == (3, SIZE, SIZE)
    assert x.dtype == torch.float32


def test_any_one_image_is_accepted(tmp_path):
    image = picture(6)
    Image.fromarray(image).save(tmp_path / "tile.png")
    transform = Transform(spec())
    expected = transform(image)
    for form in (
        tmp_path / "tile.png",
        str(tmp_path / "tile.png"),
        Image.fromarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
    ):
        torch.testing.assert_close(transform(form), expected, rtol=0, atol=0)


def test_a_transform_says_what_it_does():
    found = repr(Transform(spec(resize="shortest", resize_size=73)))
    assert (
        found
        == "Transform(64 px at 0.5 um/px, bicubic shortest 73, mean=(0.7, 0.6, 0.7), std=(0.2,"
        " 0.25, 0.2))"
    )


def test_pickling_keeps_the_transform():
    transform = Transform(spec())
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    torch.testing.assert_close(again(picture()), transform(picture()), rtol=0, atol=0)


def test_normalise_takes_arrays_and_tensors_and_keeps_channels_last():
    batch = np.stack([picture(1), picture(2)])
    found = Transform(spec()).normalise(batch)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        Transform(spec()).normalise(torch.from_numpy(batch)), found, rtol=0, atol=0
    )
    expected = (batch / 255 - np.array(spec().mean)) / np.array(spec().std)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
