"""Invalid arguments raise a PathEncoderError before any work is done."""

import decimal

import numpy as np
import pytest
import torch
from PIL import Image
from small_encoders import SIZE, encoder, picture, shared

import pathencoder
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError, ImageError
from pathencoder.mpp import check_mpp

X = torch.zeros(2, 3, SIZE, SIZE)
IMAGES = [picture(0), picture(1)]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (Image.new("RGB", (8, 8)), r"found Image.*encoder\.encode"),
        (np.zeros((1, 3, SIZE, SIZE), np.float32), "found ndarray"),
        ("tile.png", "found str"),
        ([X[0]], "found list"),
        (X.byte(), r"found torch\.uint8"),
        (X[0], rf"\[3, {SIZE}, {SIZE}\]"),
        (X.double(), r"x is torch\.float64.*x\.to\(encoder\.dtype\)"),
        (X.to("meta"), r"x is on meta.*x\.to\(encoder\.device\)"),
        (X[..., :0, :0], "cannot take images of 0 x 0 px"),
    ],
)
def test_what_forward_cannot_take(x, words):
    with pytest.raises(ImageError, match=words):
        shared("cnn")(x)


def test_a_size_that_a_network_cannot_take():
    swin = pathencoder.load_encoder("ctranspath", pretrained=False, device="cpu")
    with pytest.raises(
        ImageError,
        match=r"ctranspath-random cannot take images of 256 x 256 px .*made for 224 x 224",
    ):
        swin(torch.zeros(1, 3, 256, 256))


def test_other_errors_of_a_network_are_passed_on(monkeypatch):
    enc = encoder("cnn")
    monkeypatch.setattr(enc.network, "forward_features", lambda _: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        enc(X)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("indices", [[99], [-99], [], [1.5], "ab", 3, ["0"]])
def test_unknown_maps_are_refused(kind, indices):
    with pytest.raises(ConfigError, match=r"indices=.* has maps 0 to \d+"):
        shared(kind).pyramid(X, indices)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_maps_come_in_the_given_order(kind):
    """timm gives each block once, in the network's order."""
    enc, x = shared(kind), torch.rand(1, 3, SIZE, SIZE)
    maps = enc.pyramid(x, [1, 0])[0]
    torch.testing.assert_close(maps[0], enc.pyramid(x, [1])[0][0])
    torch.testing.assert_close(maps[1], enc.pyramid(x, [0])[0][0])
    assert len(enc.pyramid(x, [0, -1, 0])[0]) == 3


@pytest.mark.parametrize(
    "mpp",
    [
        "0.25",
        b"1",
        0,
        -1,
        float("nan"),
        True,
        1j,
        decimal.Decimal("0.5"),
        [0.5, "0.5"],
        [True, True],
        [0.5, [0.5]],
        [0.5, 0.0],
        {0.5, 0.25},
        {"a": 0.5, "b": 0.5},
        np.full((2, 2), 0.5),
    ],
)
def test_invalid_scales_are_refused(mpp):
    with pytest.raises(ConfigError, match="mpp"):
        shared().encode(IMAGES, mpp=mpp)


@pytest.mark.parametrize(
    "mpp",
    [
        np.array(0.5),
        torch.tensor(0.5),
        np.float16(0.5),
        np.full(2, 0.5),
        torch.full((2,), 0.5),
        (0.5, 0.5),
    ],
)
def test_scales_of_other_libraries(mpp):
    np.testing.assert_array_equal(
        shared().encode(IMAGES, mpp=mpp), shared().encode(IMAGES, mpp=0.5)
    )


def test_one_scale_is_checked_as_one_number():
    assert check_mpp(np.float32(0.5)) == 0.5
    with pytest.raises(ConfigError, match="micrometres per pixel"):
        check_mpp("0.25")


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("output", ["wrong", None, [], 3]),
        ("batch_size", ["8", 1.5, True, None, []]),
        ("workers", ["8", 1.5, True, []]),
        ("precision", [None, [], torch.bfloat16]),
        ("progress", ["yes", None, 1, np.zeros(2)]),
        ("on_error", [None, []]),
    ],
)
def test_settings_of_another_type(setting, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"{setting}="):
            shared().encode(IMAGES, **{setting: value})


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        ("bf16", torch.bfloat16),
        ("float16", torch.float16),
        (None, torch.float32),
        ("fp64", torch.float64),
    ],
)
def test_dtypes_by_name(dtype, found):
    assert pathencoder.load_encoder(dtype=dtype, device="cpu").dtype == found


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "int8"},
        {"dtype": torch.int8},
        {"dtype": 16},
        {"device": None},
        {"device": True},
        {"device": []},
        {"device": "cuda:99"},
        {"device": 99},
        {"device": "meta"},
        {"name": ""},
        {"name": 0},
        {"name": []},
        {"name": b"uni"},
        {"revision": 3},
    ],
)
def test_what_cannot_be_loaded(arguments):
    (argument,) = arguments
    with pytest.raises(ConfigError, match=argument):
        pathencoder.load_encoder(**arguments)


def test_a_folder_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("", None, 3):
        with pytest.raises(ConfigError, match="save_directory="):
            shared().save_pretrained(folder)
    assert list(tmp_path.iterdir()) == []


def test_patterns_and_specs():
    with pytest.raises(ConfigError, match="pattern=None"):
        pathencoder.list_encoders(None)
    with pytest.raises(ConfigError, match="found EfficientNet, NoneType"):
        Encoder(shared().network, None)
