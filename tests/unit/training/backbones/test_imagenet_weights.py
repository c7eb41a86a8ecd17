"""Weights of other projects in timm's keys: of a quantised TFLite file, checked by sha256."""

import hashlib

import numpy as np
import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file

from pathencoder import compat
from pathencoder.errors import IncompatibleWeights
from training.backbones import imagenet_weights, known_starts, tflite_weights

pytest.importorskip("tflite", reason="needs tflite (pip install tflite)")
from tflite_file import write

pytestmark = pytest.mark.full
timm = compat.import_timm()

PUBLISHED = ROOT / "../shared/weights/mobilenetv2_100_imagenet.safetensors"
SMALLEST = 2.0**-24  # of fp16: any fp16 number below 128 in size is an int32 times this


def order():
    """(kind, convolution's key, BatchNorm's or None) of timm's MobileNetV2 as it is executed."""
    with torch.device("meta"):
        net = timm.create_model("mobilenetv2_100")
    run = [m for m, layer in net.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    norms = [m for m, layer in net.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    kinds = ["DEPTHWISE_CONV_2D" if m.endswith("dw") else "CONV_2D" for m in run]
    return [*zip(kinds, run, norms, strict=True), ("CONV_2D", "classifier", None)]


def as_stored(kind, weight):
    """[out, in, h, w] as TFLite stores it."""
    return np.ascontiguousarray(
        weight.transpose(1, 2, 3, 0) if kind.startswith("DEPTH") else weight.transpose(0, 2, 3, 1)
    )


def with_background(values):
    return np.concatenate([np.full_like(values[:1], 7), values])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of random weights, and what it stands for."""
    rng = np.random.default_rng(0)
    state = timm.create_model("mobilenetv2_100").state_dict()
    layers, truth = [], {}
    for kind, convolution, norm in order():
        shape = tuple(state[f"{convolution}.weight"].shape)
        q = rng.integers(0, 256, (*shape, 1, 1)[:4], dtype=np.uint8)
        bias = rng.integers(-9999, 9999, shape[0], dtype=np.int32)
        scale, zero = np.float32(rng.uniform(0.001, 0.1)), int(rng.integers(0, 256))
        truth[f"{convolution}.weight"] = (scale * (q.astype(np.float32) - zero)).reshape(shape)
        truth[f"{norm or convolution}.bias"] = np.float32(1e-4) * bias.astype(np.float32)
        if norm is None:
            q, bias = with_background(q), with_background(bias)
        layers.append((kind, (as_stored(kind, q), scale, zero), (bias, 1e-4)))
    file = tmp_path_factory.mktemp("tflite") / "made.tflite"
    write(file, layers)
    return file, layers, truth


def test_quantised_weights_are_scaled_and_named_as_timm_names_them(made):
    file, _, truth = made
    state = tflite_weights.mobilenet_v2(file)
    for key, values in truth.items():
        assert np.array_equal(state[key].numpy(), values.astype(np.float16)), key
    network = timm.create_model("mobilenetv2_100", pad_type="same")
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    norm, x = network.eval().bn1, torch.randn(2, 32, 3, 3)
    expected = (x + norm.bias.view(1, -1, 1, 1)).clamp(0, 6)
    assert torch.allclose(norm(x), expected, atol=1e-4)


def test_other_weights_than_the_known_ones_are_not_written(made, tmp_path, capsys):
    out = tmp_path / "new/out.safetensors"
    assert imagenet_weights.main(["mobilenetv2", str(made[0]), str(out)]) == 1
    assert "the recipes name aad6954e" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("bad", [b"", b"nothing of the kind" * 9])
def test_what_is_no_such_network_is_refused(made, tmp_path, bad):
    (tmp_path / "bad.tflite").write_bytes(bad)
    with pytest.raises(IncompatibleWeights, match="is not a TFLite network"):
        tflite_weights.mobilenet_v2(tmp_path / "bad.tflite")
    write(tmp_path / "short.tflite", made[1][:4])
    with pytest.raises(IncompatibleWeights, match="4 convolutions, MobileNetV2 has 53"):
        tflite_weights.mobilenet_v2(tmp_path / "short.tflite")


def quantised(values):
    """uint8, a scale and a zero point that give these fp16 values back: found by trying scales."""
    wanted = np.unique(values)
    wanted = wanted[wanted != 0]
    largest = float(np.abs(wanted).max())
    # fp16 rounds what lies half way to its neighbours
    neighbours = np.stack([np.nextafter(wanted, np.float16(to)) for to in (-np.inf, np.inf)])
    half_way = (neighbours.astype(np.float64) + wanted) / 2
    for steps in range(1, 256):
        # the interval of scales that the rounding leaves, narrowed by every value
        k = np.round(wanted.astype(np.float64) / (largest / steps))
        if not k.all():
            continue
        ends = half_way / k
        low, high = ends.min(0).max(), ends.max(0).min()
        scale, zero = np.float32((low + high) / 2), int(max(0, -k.min()))
        if low < high and k.max() + zero <= 255:
            q = np.round(values.astype(np.float64) / scale) + zero
            back = (scale * (q - zero).astype(np.float32)).astype(np.float16)
            if np.array_equal(back, values):
                return q.astype(np.uint8), scale, zero
    raise AssertionError("these values have no common scale")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published file in ../shared")
def test_the_published_file_comes_back_byte_for_byte(tmp_path):
    published, layers = load_file(PUBLISHED), []
    for kind, convolution, norm in order():
        weight = published[f"{convolution}.weight"].numpy()
        bias = published[f"{norm or convolution}.bias"].numpy().astype(np.float64) / SMALLEST
        q, scale, zero = quantised(weight.reshape((*weight.shape, 1, 1)[:4]))
        assert np.abs(bias).max() < 2**31
        bias = bias.astype(np.int32)
        if norm is None:
            q, bias = with_background(q), with_background(bias)
        layers.append((kind, (as_stored(kind, q), scale, zero), (bias, SMALLEST)))
    write(tmp_path / "source.tflite", layers)
    out = tmp_path / "out.safetensors"
    assert imagenet_weights.main(["mobilenetv2", str(tmp_path / "source.tflite"), str(out)]) == 0
    assert out.read_bytes() == PUBLISHED.read_bytes()
    assert hashlib.sha256(out.read_bytes()).hexdigest() == known_starts.MOBILENET_V2


def test_a_missing_start_says_where_it_is_had_and_which_command_converts_it(tmp_path):
    text = known_starts.how_to_obtain(known_starts.MOBILENET_V2, tmp_path / "a.safetensors")
    assert "github.com/google-coral/test_data" in text
    assert f"imagenet_weights mobilenetv2 mobilenet_v2_1.0_224_quant.tflite {tmp_path}" in text
    assert "backbone.start=pathencoder-tiny" in text
    assert "python -m" not in known_starts.how_to_obtain("0" * 64, tmp_path / "a.safetensors")
