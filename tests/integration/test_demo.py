"""`pathencoder demo`: a picture after a plain install, of any image, in the format of its name."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from small_encoders import encoder, picture

from pathencoder.cli import demo
from pathencoder.cli.main import run


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "small"
    encoder("cnn").save_pretrained(folder)
    return folder


@pytest.fixture
def draw(small, tmp_path, capsys):
    """Run it with a small encoder; the exit status, the picture, and what was printed."""

    def drawn(*arguments, image=None, out="seen.png"):
        if image is not None:
            Image.fromarray(image).save(tmp_path / "image.png")
            arguments = ("--image", str(tmp_path / "image.png"), *arguments)
        status = run(
            [
                "demo",
                "--encoder",
                str(small),
                "--device",
                "cpu",
                "--out",
                str(tmp_path / out),
                *arguments,
            ]
        )
        return status, tmp_path / out, capsys.readouterr()

    return drawn


def test_the_example_needs_no_extra(draw, monkeypatch):
    for extra in ("skimage", "matplotlib", "scipy"):
        monkeypatch.setitem(sys.modules, extra, None)
    status, out, _ = draw()
    assert status == 0
    with Image.open(out) as page:
        assert page.width > 3 * 512


def test_the_example_is_scikit_images():
    from skimage import data

    ours, theirs = demo.example_image().astype(int), data.immunohistochemistry().astype(int)
    assert ours.shape == theirs.shape == (512, 512, 3)
    assert np.abs(ours - theirs).mean() < 3


@pytest.mark.parametrize("size", [(64, 48), (40, 1400), (900, 30), (1, 1), (80, 72)])
def test_images_of_any_shape(draw, size):
    status, _, printed = draw("--mpp", "0.5", "--json", image=picture(1, *size))
    assert status == 0
    found = json.loads(printed.out)
    assert found["shape"] == [4, 256]
    longer = max(size) * found["enlarged"]
    assert 360 <= longer <= 1024 + 1 or found["enlarged"] == 1


def test_a_large_image_is_reduced_and_that_is_said(draw):
    _, _, printed = draw(image=picture(1, 600, 2048))
    assert "reduced to 1024 x 300 px" in printed.out


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("new/a.TIFF", "TIFF"), ("a.webp", "WEBP")]
)
def test_the_ending_says_the_format(draw, name, kind):
    status, out, _ = draw(image=picture(), out=name)
    assert status == 0
    with Image.open(out) as page:
        assert page.format == kind


@pytest.mark.parametrize("name", ["a.gif", "a", "a.npy"])
def test_an_ending_that_says_none_is_refused(draw, name):
    status, out, printed = draw(image=picture(), out=name)
    assert (status, out.exists()) == (2, False)
    assert ".png, .jpg" in printed.err


def test_a_point_outside_is_refused_before_anything_is_loaded(draw, monkeypatch):
    monkeypatch.setattr(demo, "load", lambda *_, **__: pytest.fail("loaded"))
    for arguments in (("--point", "500,5"), ("--point", "80,0")):
        status, _, printed = draw(*arguments, image=picture(1, 72, 80))
        assert status == 2
        assert "outside the image, which is 80 x 72 px" in printed.err
