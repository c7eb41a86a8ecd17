"""`encode`: the same row for every form, order and batch size; keys, errors, precision, memory."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_encoders import SIZE, encoder, picture, shared

from pathencoder import runtime
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError, ImageError
from pathencoder.runtime import Runner
from pathencoder.transforms import Transform

EXAMPLES = settings(max_examples=15, deadline=None)


@pytest.fixture
def tiles(tmp_path):
    for i in range(12):
        Image.fromarray(picture(i, 80, 72)).save(tmp_path / f"tile{i}.png")
    return tmp_path


def arrays(count=12):
    return [picture(i, 80, 72) for i in range(count)]


@EXAMPLES
@given(st.integers(0, 99), st.integers(1, 80), st.integers(1, 80))
def test_any_form_of_an_image_gives_the_identical_row(tmp_path_factory, seed, height, width):
    array = picture(seed, height, width)
    path = tmp_path_factory.getbasetemp() / "form.png"
    Image.fromarray(array).save(path)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    forms = [
        array,
        Image.fromarray(array),
        path,
        tensor,
        tensor / 255,
        np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]),
    ]
    rows = shared().encode(forms)
    assert rows.dtype == np.float32
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])


@pytest.mark.parametrize("kind", ["cnn", "vit", "no_cls"])
def test_rows_do_not_depend_on_the_batch_size_or_the_other_images(kind):
    enc = shared(kind)
    images = arrays(13)
    rows = enc.encode(images)
    assert np.unique(rows.round(4), axis=0).shape[0] == 13
    for size in (1, 2, 5, 7, 32):
        np.testing.assert_allclose(
            enc.encode(images, batch_size=size), rows, rtol=0, atol=2e-6 * np.abs(rows).max()
        )
    np.testing.assert_allclose(
        enc.encode(images[3])[0], rows[3], rtol=0, atol=2e-6 * np.abs(rows).max()
    )


def test_a_row_is_what_the_network_gives_for_the_transformed_image():
    enc = shared("vit")
    image = picture(5, 90, 70)
    with torch.inference_mode():
        expected = enc(enc.transform(image)[None]).embedding[0].numpy()
    np.testing.assert_allclose(enc.encode(image)[0], expected, atol=1e-5)


def test_order_and_keys(tiles):
    enc = shared()
    expected = enc.encode(arrays())
    rows, keys = enc.encode(tiles, return_keys=True, batch_size=5)
    assert keys == [f"tile{i}.png" for i in range(12)]
    np.testing.assert_array_equal(rows, expected)
    rows, keys = enc.encode((a for a in arrays()), return_keys=True, batch_size=5)
    assert keys == list(range(12))
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize(
    ("kind", "output", "shape"),
    [
        ("vit", "embedding", (64,)),
        ("vit", "cls", (64,)),
        ("vit", "mean", (64,)),
        ("vit", "cls_mean", (128,)),
        ("vit", "multi", (512,)),
        ("vit", "dense", (64, 4, 4)),
        ("cnn", "mean", (256,)),
        ("cnn", "dense", (256, 2, 2)),
    ],
)
def test_outputs_and_their_shapes(kind, output, shape):
    rows = shared(kind).encode(arrays(3), output=output)
    assert rows.shape == (3, *shape)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_empty_inputs_give_no_rows():
    assert shared().encode([]).shape == (0, 256)
    assert shared().encode(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 256)
    assert shared().encode(iter([]), return_keys=True)[1] == []


def test_one_bad_file_among_a_hundred(tiles):
    enc = shared()
    (tiles / "tile4.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"tile4\.png"):
        enc.encode(tiles)
    with pytest.warns(UserWarning, match="^1 of 12 images could not be read"):
        rows, keys = enc.encode(tiles, on_error="nan", return_keys=True, batch_size=5)
    assert keys[4] == "tile4.png"
    assert np.isnan(rows[4]).all()
    np.testing.assert_array_equal(
        np.delete(rows, 4, axis=0), np.delete(enc.encode(arrays()), 4, axis=0)
    )


def test_results_carry_the_error_of_each_bad_image(tiles):
    (tiles / "tile11.png").write_bytes(b"")
    *good, bad = shared().results(tiles)
    assert [r.error for r in good] == [None] * 11
    assert (bad.key, type(bad.error)) == ("tile11.png", ImageError)
    assert np.isnan(bad.row).all()
    assert bad.error.__traceback__ is None  # frames would keep the pixels of a whole group alive
    assert bad.error.__cause__.__traceback__ is None


def test_a_list_of_bad_images_only_still_has_rows():
    with pytest.warns(UserWarning, match="2 of 2"):
        rows = shared().encode(
            [np.zeros(3), np.full((4, 4, 3), np.nan)], on_error="nan", output="dense"
        )
    assert rows.shape == (2, 256, 2, 2)
    assert np.isnan(rows).all()


def test_tensors_that_look_normalised_are_refused_with_advice():
    enc = shared()
    normalised = torch.stack([enc.transform(a) for a in arrays(2)])
    with pytest.raises(
        ImageError,
        match=r"images, number 0 of the stack.*uint8 0\.\.255 or float 0\.\.1.*encoder\(x\)",
    ):
        enc.encode(normalised)


def test_mpp_of_one_or_of_each_image():
    enc = shared()
    images = [picture(1, 256, 256)] * 3
    each = enc.encode(images, mpp=[0.25, 0.5, None])
    for row, mpp in zip(each, (0.25, 0.5, None), strict=True):
        np.testing.assert_array_equal(row, enc.encode(images[0], mpp=mpp)[0])
    assert not np.allclose(each[0], each[1])
    np.testing.assert_array_equal(
        enc.encode(images, mpp=np.full(3, 0.25)), enc.encode(iter(images), mpp=np.float32(0.25))
    )


def test_an_image_of_the_input_size_at_the_encoders_mpp_is_untouched():
    np.testing.assert_array_equal(shared().encode(picture(1), mpp=0.5), shared().encode(picture(1)))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"mpp": [0.5]}, "mpp holds 1 values for 2 images"),
        ({"mpp": iter([0.5])}, r"mpp ended before the images did, at images\[1\]"),
        ({"mpp": [0.5, -3]}, "micrometres"),
        ({"mpp": "0.5"}, r"mpp='0\.5': one number"),
        ({"output": "pooled"}, "output='pooled'"),
        ({"output": "cls"}, "no class token"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "all"}, "batch_size='all'"),
        ({"precision": "int8"}, "precision='int8'"),
        ({"runtime": "tensorrt"}, "runtime='tensorrt'"),
        ({"workers": 0}, "workers=0"),
        ({"on_error": "skip"}, "on_error='skip'"),
        ({"progress": "yes"}, "progress='yes'"),
    ],
)
def test_settings_that_do_not_fit(setting, words):
    with pytest.raises(ConfigError, match=words):
        shared().encode(arrays(2), **setting)


def test_progress_shows_a_bar_only_where_asked_or_on_a_terminal(capsys):
    shared().encode(arrays(2))
    assert capsys.readouterr().err == ""
    shared().encode(arrays(2), progress=True)
    assert "2/2" in capsys.readouterr().err


def test_training_mode_is_left_as_it_was_and_does_not_change_rows():
    enc = encoder()
    expected = enc.encode(arrays(4))
    enc.network.train()
    enc.network.bn1.eval()
    np.testing.assert_array_equal(enc.encode(arrays(4)), expected)
    assert enc.network.training
    assert not enc.network.bn1.training


def test_rows_need_no_gradient_while_forward_gives_one():
    enc = encoder()
    enc.encode(arrays(2))
    enc(torch.zeros(2, 3, SIZE, SIZE)).embedding.sum().backward()
    assert next(enc.parameters()).grad is not None


# precision


def test_auto_is_fp32_on_hardware_that_gains_from_bf16_too(monkeypatch):
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: True, raising=False)
    enc = encoder("vit")
    full = enc.encode(arrays(4), precision="fp32")
    np.testing.assert_array_equal(enc.encode(arrays(4)), full)
    assert not np.array_equal(enc.encode(arrays(4), precision="bf16"), full)


def test_an_autocast_of_the_caller_changes_no_row():
    full = shared("vit").encode(arrays(2))
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(shared("vit").encode(arrays(2)), full)


def test_the_precision_that_is_used():
    enc = encoder("vit")
    assert [enc.precision_used(p) for p in ("auto", "fp32", "bf16", "fp16")] == [
        "fp32",
        "fp32",
        "bf16",
        "fp16",
    ]
    half = enc.to(torch.bfloat16)
    assert (half.precision_used(), half.precision_used("bf16")) == ("bf16", "bf16")
    assert enc.to(torch.float64).precision_used() == "fp64"
    for wrong in ("fp32", "fp16", "int8", None):
        with pytest.raises(ConfigError, match="precision="):
            half.precision_used(wrong)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_rows_in_bf16_do_not_depend_on_the_batch_size_either(kind):
    enc = shared(kind)
    rows = enc.encode(arrays(9), precision="bf16")
    for size in (1, 2, 7):
        np.testing.assert_allclose(
            enc.encode(arrays(9), precision="bf16", batch_size=size),
            rows,
            rtol=0,
            atol=0.01 * np.abs(rows).max(),
        )


def test_hardware_with_bf16_units(monkeypatch):
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: False, raising=False)
    assert not runtime.gains_from_bf16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, question, lambda: True)
    assert runtime.gains_from_bf16(torch.device("cpu"))
    assert not runtime.gains_from_bf16(torch.device("mps"))


def test_weights_in_half_precision_run_unchanged():
    enc = encoder("vit").to(torch.bfloat16)
    rows = enc.encode(arrays(2))
    full = encoder("vit").encode(arrays(2))
    assert rows.dtype == np.float32
    cosine = (rows * full).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.99
    with pytest.raises(ConfigError, match=r"weights are torch\.bfloat16"):
        enc.encode(arrays(2), precision="fp32")


# memory


class Hungry:
    """A readout that takes at most so many images before memory runs out."""

    def __init__(self, most, text="CUDA out of memory. Tried to allocate 20 MiB"):
        self.most, self.text, self.batches = most, text, []

    def __call__(self, x):
        self.batches.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError(self.text)
        return x.mean((2, 3))


def hungry_runner(readout):
    enc = shared()
    return Runner(enc.network, readout, enc.transform.normalise, precision="fp32", batch=8)


def test_out_of_memory_halves_the_batch_and_loses_no_rows():
    tiles = np.stack([picture(i) for i in range(11)])
    expected = Transform(shared().spec).normalise(tiles).mean((2, 3))
    readout = Hungry(3)
    runner = hungry_runner(readout)
    runner.batch = 8
    torch.testing.assert_close(runner(tiles), expected)
    assert readout.batches[:3] == [8, 4, 2]
    assert runner.batch == 2


def test_too_little_memory_for_one_image_gives_advice():
    with pytest.raises(
        ConfigError, match="one image at a time does not fit into the memory of cpu"
    ):
        hungry_runner(Hungry(0))(np.stack([picture()]))


def test_other_errors_of_the_network_do_not_count_as_out_of_memory():
    def broken(x):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        hungry_runner(broken)(np.stack([picture()] * 2))


def test_devices_by_name():
    assert runtime.pick_device("cpu") == torch.device("cpu")
    assert runtime.pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="not known"):
        runtime.pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="is not available"):
            runtime.pick_device("cuda:0")


def test_a_normal_run_gives_no_warning(tiles):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared().encode(tiles, on_error="nan")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_file_of_the_weights_does_not_stay_in_memory(tmp_path):
    encoder("cnn").save_pretrained(tmp_path / "saved")
    loaded = load_encoder(tmp_path / "saved", device="cpu")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(
        loaded.encode(picture(), progress=False), shared("cnn").encode(picture(), progress=False)
    )
