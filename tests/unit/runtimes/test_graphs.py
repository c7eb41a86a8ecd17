"""Real exports in the real runtimes: the rows of torch, whatever the batch, thread and process."""

import logging
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_encoders import SIZE, encoder, picture

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError, StoreError
from pathencoder.runtimes import engine, exported, formats, parity
from pathencoder.runtimes.export import export
from pathencoder.stream import Settings

pytestmark = [pytest.mark.full, pytest.mark.slow]

PICTURES = [picture(seed, 90, 70) for seed in range(9)]
RUNTIMES = ("onnx", "openvino")


def settled(enc):
    """The encoder with BatchNorms of these pictures, so that no value is far beyond the others."""
    for module in enc.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean
    enc.train()
    with torch.no_grad():
        enc(torch.stack([enc.transform(one) for one in PICTURES]))
    return enc.eval()


@pytest.fixture(scope="module", params=["cnn", "vit"])
def made(request, tmp_path_factory):
    """An encoder with an ONNX file beside its weights."""
    folder = tmp_path_factory.mktemp(request.param)
    settled(encoder(request.param)).save_pretrained(folder)
    loaded = pathencoder.load_encoder(folder, device="cpu")
    return loaded, export(loaded, folder)


def rows_of(enc, runtime, **options):
    return enc.encode(PICTURES, runtime=runtime, progress=False, **options)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rows_are_those_of_torch_whatever_the_batch(made, runtime):
    enc, _ = made
    rows = rows_of(enc, runtime)
    assert parity.difference(rows, rows_of(enc, "torch")) < 1e-5
    for batch in (1, 2, 5, 64):
        assert np.array_equal(rows_of(enc, runtime, batch_size=batch), rows)


def test_auto_takes_onnx_of_the_bundled_encoder():
    enc = pathencoder.load_encoder(device="cpu")
    assert enc.runtime_used(Settings()).runtime == "onnx"
    tiles = [picture(seed, 224, 224) for seed in range(3)]
    expected = enc.encode(tiles, runtime="torch", progress=False)
    for runtime in ("auto", *RUNTIMES):
        found = enc.encode(tiles, runtime=runtime, progress=False)
        assert parity.difference(found, expected) < 1e-5


def test_what_was_exported_is_described(made):
    enc, described = made
    file = enc.folder / "model.onnx"
    assert exported.read(file) == described
    assert described.weights_sha256 == enc.spec.sha256
    assert described.check["largest_relative_difference"] < 1e-5
    assert described.any_size == ("vit" not in enc.spec.name)
    model = onnx.load(file)
    assert {p.key: p.value for p in model.metadata_props}["pathencoder.weights_sha256"] == (
        enc.spec.sha256
    )
    assert {o.version for o in model.opset_import if not o.domain} == {formats.OPSET}
    text = file.read_bytes()
    assert b"site-packages" not in text  # the exporter's traces name this machine's files


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
@pytest.mark.parametrize("sides", [(64, 64), (65, 98), (130, 81), (224, 224)], ids=str)
def test_a_cnn_takes_any_size(made, sides):
    enc, _ = made
    session = onnxruntime.InferenceSession(enc.folder / "model.onnx")
    x = torch.randn(3, 3, *sides)
    with torch.inference_mode():
        expected = enc(x).embedding.numpy()
    (found,) = session.run(None, {"image": x.numpy()})
    assert parity.difference(found, expected) < 1e-5


@pytest.mark.parametrize("form", ["openvino", "torch-export", "torchscript"])
def test_other_formats(made, tmp_path, form):
    enc, _ = made
    described = export(enc, tmp_path, form=form)
    assert described.check["largest_relative_difference"] < 1e-5
    assert described.any_size == (form != "torchscript" and "vit" not in enc.spec.name)
    assert {p.name for p in tmp_path.iterdir()} == {
        *described.files,
        {"openvino": "model.xml", "torch-export": "model.pt2"}.get(form, "model.torchscript.pt")
        + ".json",
    }
    if form == "openvino":
        expected = rows_of(enc, "torch")
        assert parity.difference(rows_of(enc, tmp_path), expected) < 1e-5


@pytest.mark.parametrize(
    ("made", "form"),
    [(kind, form) for kind in ("cnn", "vit") for form in RUNTIMES],
    indirect=["made"],
)
def test_int8_is_calibrated_on_tiles_and_its_loss_is_measured(made, tmp_path, form):
    enc, _ = made
    tiles = [picture(seed) for seed in range(24)]
    levels = [handler.level for handler in logging.root.handlers]
    described = export(enc, tmp_path, form=form, precision="int8", tiles=tiles)
    assert [handler.level for handler in logging.root.handlers] == levels
    loss = described.calibration
    assert (loss["tiles"], loss["held_out_tiles"]) == (18, 6)
    assert 0 < loss["smallest_centred_cosine"] <= loss["mean_centred_cosine"] <= 1
    used = enc.runtime_used(Settings(runtime=tmp_path, precision="int8"))
    assert (used.runtime, used.precision) == (form, "int8")
    rows = rows_of(enc, tmp_path, precision="int8")
    assert 1e-5 < parity.difference(rows, rows_of(enc, "torch")) < 0.9  # 1: all zero
    for batch in (1, 3):  # a row does not depend on the images beside it
        again = rows_of(enc, tmp_path, precision="int8", batch_size=batch)
        assert parity.difference(again, rows) < 1e-5
    with pytest.raises(ConfigError, match="no file of fp32 there"):
        rows_of(enc, tmp_path)


@pytest.mark.parametrize("made", ["cnn", "vit"], indirect=True)
def test_int8_weights_leave_room_for_the_sum_of_two_products(made, tmp_path):
    """Where a CPU adds them in 16 bits, 255 * 64 * 2 fits, and 255 * 127 * 2 does not."""
    enc, _ = made
    export(enc, tmp_path, precision="int8", tiles=[picture(seed) for seed in range(24)])
    graph = onnx.load(tmp_path / "model.int8.onnx").graph
    weights = [onnx.numpy_helper.to_array(i) for i in graph.initializer]
    largest = [np.abs(w.astype(int)).max() for w in weights if w.dtype == np.int8 and w.ndim > 1]
    assert largest
    assert max(largest) <= 64


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_weights_that_are_too_large_for_one_file_lie_in_a_second(made, tmp_path, monkeypatch):
    enc, _ = made
    monkeypatch.setattr(formats, "_ONE_FILE", 0)
    assert set(export(enc, tmp_path).files) == {"model.onnx", "model.onnx.data"}
    assert (tmp_path / "model.onnx").stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    assert np.array_equal(rows_of(enc, tmp_path), rows_of(enc, "onnx"))
    tiles = [picture(seed) for seed in range(24)]
    assert set(export(enc, tmp_path, precision="int8", tiles=tiles).files) == {"model.int8.onnx"}


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_an_export_that_computes_something_else_is_not_written(made, tmp_path, monkeypatch):
    enc, _ = made
    real = formats.exportable

    def other(network, spec, *, for_onnx):
        module = real(network, spec, for_onnx=for_onnx)
        for parameter in module.parameters():
            parameter.mul_(1.2)
        return module

    monkeypatch.setattr(formats, "exportable", other)
    with pytest.raises(ConfigError, match="computes other embeddings than torch"):
        export(enc, tmp_path / "out", form="torchscript")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_a_file_of_another_program_is_not_replaced(made, tmp_path):
    enc, _ = made
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(StoreError, match=r"its model\.onnx would be replaced"):
        export(enc, tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_the_command(made, tmp_path, capsys):
    enc, _ = made
    command = ["export", str(enc.folder), "--out", str(tmp_path), "--format", "torchscript"]
    assert run(command) == 0
    assert "any number of images of 64 x 64 px" in capsys.readouterr().out
    assert run([*command, "--precision", "int8"]) == 2
    assert "--precision int8 needs tiles to calibrate on" in capsys.readouterr().err
    assert run([*command, "--calibrate", str(tmp_path)]) == 2
    assert "--calibrate is for int8" in capsys.readouterr().err
    few = tmp_path / "few"
    few.mkdir()
    assert run([*command, "--precision", "int8", "--calibrate", str(few)]) == 2
    assert "0 tiles that can be read, and int8 needs 24" in capsys.readouterr().err


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_threads_share_a_graph(made):
    enc, _ = made
    for runtime in RUNTIMES:
        expected = rows_of(enc, runtime)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, r=runtime: rows_of(enc, r, workers=1), range(8)))
        assert all(np.array_equal(rows, expected) for rows in found)


def rows_in_a_process(folder, runtime, tiles):
    torch.set_num_threads(1)  # torch's threads do not exist after a fork: it would wait for them
    enc = pathencoder.load_encoder(folder, device="cpu")
    return enc.encode(tiles, runtime=runtime, progress=False)


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
@pytest.mark.parametrize(
    ("how", "runtime"), [("spawn", "onnx"), ("fork", "onnx"), ("fork", "openvino")]
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_open_their_own(made, how, runtime):
    enc, _ = made
    tiles = [picture(seed, SIZE, SIZE) for seed in range(3)]
    expected = enc.encode(tiles, runtime=runtime, progress=False)  # opened before the fork
    context = multiprocessing.get_context(how)
    with context.Pool(1) as pool:
        found = pool.apply_async(rows_in_a_process, (enc.folder, runtime, tiles)).get(timeout=60)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_a_graph_uses_as_many_threads_as_torch(made, monkeypatch):
    enc, _ = made
    asked = []
    real = engine.Engine._read
    monkeypatch.setattr(
        engine.Engine, "_read", lambda self, file, n: asked.append(n) or real(self, file, n)
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        rows_of(enc, "onnx")
    finally:
        torch.set_num_threads(before)
    assert asked == [3]


@pytest.mark.parametrize("made", ["cnn"], indirect=True)
def test_openvino_comes_without_telemetry(made):
    rows_of(made[0], "openvino")
    assert "openvino_telemetry" not in sys.modules
