"""Which runtime computes: names, files of other encoders, encoders that were changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from fake_runtimes import ROWS, use_engine, write_graph
from small_encoders import encoder, picture

import pathencoder
from pathencoder.errors import ChecksumError, ConfigError, MissingExtra
from pathencoder.pretrained import catalogue
from pathencoder.pretrained.folder import sha256_of
from pathencoder.runtimes import choose, engine
from pathencoder.stream import Settings


@pytest.fixture
def saved(tmp_path):
    encoder("cnn").save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def loaded(saved):
    found = pathencoder.load_encoder(saved, device="cpu")
    write_graph(saved, found.spec)
    return found


def runtime_of(enc, **settings):
    return enc.runtime_used(Settings(**settings)).runtime


def test_auto_takes_a_runtime_that_is_installed_where_there_is_a_file(loaded, saved, monkeypatch):
    use_engine(monkeypatch)
    assert runtime_of(loaded) == "onnx"
    rows = loaded.encode([picture()] * 3, progress=False)
    assert np.array_equal(rows, np.tile(ROWS, (3, 1)))
    use_engine(monkeypatch, installed=False)
    assert runtime_of(loaded) == "torch"
    with pytest.raises(MissingExtra, match=r"pathencoder\[onnx\]"):
        runtime_of(loaded, runtime="onnx")
    use_engine(monkeypatch)
    (saved / "model.onnx").unlink()
    assert runtime_of(loaded) == "torch"
    with pytest.raises(ConfigError, match=r"no exported file \(model\.onnx\) beside"):
        runtime_of(loaded, runtime="onnx")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "bf16"}, "fp32 or int8, not bf16"),
        ({"output": "mean"}, "not output='mean'"),
    ],
)
def test_what_no_exported_file_computes_runs_in_torch(loaded, monkeypatch, settings, words):
    use_engine(monkeypatch)
    assert runtime_of(loaded, **settings) == "torch"
    with pytest.raises(ConfigError, match=words):
        runtime_of(loaded, runtime="onnx", **settings)


def changed_weights(enc):
    next(enc.network.parameters()).data.mul_(1.5)  # does not count as a version of the tensor


def changed_statistics(enc):
    next(m for m in enc.network.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean += 1


def hook(enc):
    enc.network.register_forward_hook(lambda *_: None)


def wrapped(enc):
    enc.network = torch.optim.swa_utils.AveragedModel(enc.network)


def replaced(enc):
    enc.network = encoder("cnn").network
    changed_weights(enc)


def swapped_channels(enc):
    first = next(m for m in enc.network.modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight[:, [2, 1, 0]].clone())


def other_activations(enc):
    for name, module in list(enc.network.named_modules()):
        if isinstance(module, torch.nn.SiLU | torch.nn.ReLU):
            parent = enc.network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.LeakyReLU(0.2))


def stride(enc):
    next(m for m in enc.network.modules() if isinstance(m, torch.nn.Conv2d)).stride = (1, 1)


CHANGES = [changed_weights, changed_statistics, hook, wrapped, replaced]
CHANGES += [swapped_channels, other_activations, stride]


def test_an_encoder_that_was_changed_before_it_ran_runs_in_torch(loaded, monkeypatch):
    use_engine(monkeypatch)
    other_activations(loaded)
    assert runtime_of(loaded) == "torch"


@pytest.mark.parametrize("change", CHANGES)
def test_an_encoder_that_was_changed_runs_in_torch(loaded, monkeypatch, change):
    use_engine(monkeypatch)
    assert runtime_of(loaded) == "onnx"
    change(loaded)
    assert runtime_of(loaded) == "torch"
    with pytest.raises(ConfigError, match="it is not the encoder that was exported"):
        runtime_of(loaded, runtime="onnx")


def test_an_encoder_that_is_another_than_the_exported_one_runs_in_torch(loaded, monkeypatch):
    use_engine(monkeypatch)
    assert runtime_of(loaded) == "onnx"
    loaded.origin = dataclasses.replace(loaded.origin, exports=False)  # an adapted one
    assert runtime_of(loaded) == "torch"
    with pytest.raises(ConfigError, match="has no exported file"):
        runtime_of(loaded, runtime="onnx")


def test_an_encoder_on_another_device_runs_in_torch(loaded, monkeypatch):
    use_engine(monkeypatch)
    loaded.to("meta")
    assert runtime_of(loaded) == "torch"
    with pytest.raises(ConfigError, match="the encoder is on meta, and exported files run on the"):
        runtime_of(loaded, runtime="onnx")


def test_the_last_files_stay_open(loaded, saved, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    monkeypatch.setattr(engine, "_KEPT", 2)
    monkeypatch.setattr(engine, "_opened", {})
    reads = []
    real = engine.Engine._read
    monkeypatch.setattr(
        engine.Engine, "_read", lambda *a: reads.append(a[1].parent.name) or real(*a)
    )
    for name in "abc":
        write_graph(tmp_path / name, loaded.spec)
    for name in "aabacba":
        runtime_of(loaded, runtime=tmp_path / name)
    assert reads == ["a", "b", "c", "b", "a"]


def test_weights_of_another_dtype_run_in_torch(saved, loaded, monkeypatch):
    use_engine(monkeypatch)
    half = pathencoder.load_encoder(saved, device="cpu", dtype="bf16")
    assert runtime_of(half) == "torch"
    with pytest.raises(ConfigError, match=r"the weights are torch\.bfloat16"):
        runtime_of(half, runtime="onnx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights_sha256": "0" * 64, "encoder": "other"}, r"other weights \(other, sha256 0000"),
        ({"embedding": "mean"}, "computes another embedding"),
        ({"any_size": False, "input_size": 32}, "takes images of 32 px"),
    ],
)
def test_a_file_of_another_encoder(loaded, saved, monkeypatch, caplog, changes, words):
    use_engine(monkeypatch)
    write_graph(saved, loaded.spec, **changes)
    with pytest.raises(ConfigError, match=words):
        runtime_of(loaded, runtime="onnx")
    choose._warn_once.cache_clear()
    assert runtime_of(loaded) == "torch"
    assert "runs in torch" in caplog.text


def test_a_damaged_file(loaded, saved, monkeypatch):
    use_engine(monkeypatch)
    (saved / "model.onnx").write_bytes(b"graqh")
    with pytest.raises(ChecksumError, match=r"model\.onnx is damaged"):
        runtime_of(loaded, runtime="onnx")
    assert runtime_of(loaded) == "torch"
    (saved / "model.onnx.json").write_text("[1]")
    with pytest.raises(ConfigError, match="does not describe an exported encoder"):
        runtime_of(loaded, runtime="onnx")


def test_a_file_that_the_library_cannot_run(loaded, saved, monkeypatch):
    use_engine(monkeypatch, fails=True)
    write_graph(saved, loaded.spec, content=b"of a newer opset")
    with pytest.raises(ConfigError, match=r"onnx cannot run .*\(Opset 99 is not supported\)"):
        runtime_of(loaded, runtime="onnx")
    assert runtime_of(loaded) == "torch"


def test_a_file_or_folder_is_named(loaded, saved, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    file = write_graph(tmp_path / "elsewhere", loaded.spec)
    (saved / "model.onnx").unlink()
    for place in (file, file.parent, str(file)):
        assert runtime_of(loaded, runtime=place) == "onnx"
    with pytest.raises(ConfigError, match=r"runs files of ONNX \(\.onnx\) and OpenVINO"):
        runtime_of(loaded, runtime=saved / "config.json")
    with pytest.raises(ConfigError, match="no file of fp32 there"):
        runtime_of(loaded, runtime=tmp_path)
    with pytest.raises(ConfigError, match=r"runtime='tensorrt': one of auto, torch, onnx, openv"):
        Settings(runtime="tensorrt")


def test_a_folder_with_the_other_precision_says_so(loaded, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    for made, asked in (("int8", "fp32"), ("fp32", "int8")):
        write_graph(tmp_path / made, loaded.spec, precision=made)
        with pytest.raises(ConfigError, match=rf"no file of {asked}.*--precision {made}\)"):
            runtime_of(loaded, runtime=tmp_path / made, precision=asked)


def test_a_file_without_its_json(loaded, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    (tmp_path / "mine.onnx").write_bytes(b"graph")
    with pytest.raises(ConfigError, match=r"since mine\.onnx\.json is not beside it"):
        runtime_of(loaded, runtime=tmp_path / "mine.onnx")


def test_int8_is_used_when_it_is_asked_for(loaded, saved, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    with pytest.raises(ConfigError, match="has no file of int8 beside its weights"):
        runtime_of(loaded, precision="int8")
    with pytest.raises(ConfigError, match="torch runs the encoder in fp32"):
        runtime_of(loaded, runtime="torch", precision="int8")
    file = write_graph(saved, loaded.spec, precision="int8")
    assert loaded.runtime_used(Settings()).precision == "fp32"
    for settings in ({"precision": "int8"}, {"runtime": file}):
        used = loaded.runtime_used(Settings(**settings))
        assert (used.precision, used.graph_sha256) == ("int8", sha256_of(file))
    with pytest.raises(ConfigError, match="computes in int8"):
        runtime_of(loaded, runtime=file, precision="fp32")


def loss(mean=0.995, least=0.99, method="static"):
    return {"mean_centred_cosine": mean, "acceptable_from": least, "method": method}


def test_int8_that_loses_too_much_is_not_chosen_but_runs_by_name(
    loaded, saved, monkeypatch, caplog
):
    use_engine(monkeypatch)
    choose._warn_once.cache_clear()
    for least, mean in ((0.99, 0.98), (None, 0.96)):
        calibration = loss(mean, least)
        if least is None:  # as files of earlier versions have it
            del calibration["acceptable_from"]
        file = write_graph(saved, loaded.spec, precision="int8", calibration=calibration)
        words = (
            rf"centred cosine of {mean}0 with those of fp32 on average, less than {least or '0.97'}"
        )
        with pytest.raises(ConfigError, match=words):
            runtime_of(loaded, precision="int8")
        caplog.clear()
        assert loaded.runtime_used(Settings(runtime=file)).precision == "int8"
        assert "Compare what you do with it with fp32" in caplog.text


def test_int8_is_the_acceptable_one_of_two_and_openvinos_for_a_transformer(
    loaded, saved, tmp_path, monkeypatch
):
    use_engine(monkeypatch, names=("onnx", "openvino"))
    encoder("vit").save_pretrained(tmp_path / "vit")
    vit = pathencoder.load_encoder(tmp_path / "vit", device="cpu")
    for enc, folder, first in ((loaded, saved, "onnx"), (vit, tmp_path / "vit", "openvino")):
        for form in ("onnx", "openvino"):
            write_graph(folder, enc.spec, form=form, precision="int8", calibration=loss())
        assert runtime_of(enc, precision="int8") == first
        assert runtime_of(enc, precision="int8", runtime=folder) == first
        write_graph(folder, enc.spec, form=first, precision="int8", calibration=loss(0.9))
        assert {runtime_of(enc, precision="int8"), first} == {"onnx", "openvino"}
        assert {runtime_of(enc, precision="int8", runtime=folder), first} == {"onnx", "openvino"}
        (folder / "model.int8.xml").unlink()
        write_graph(folder, enc.spec, form="onnx", precision="int8", calibration=loss())
        assert runtime_of(enc, precision="int8") == "onnx"  # OpenVINO would read this file too


def test_int8_whose_ranges_are_found_at_run_time_takes_one_image_at_a_time(
    loaded, saved, monkeypatch
):
    use_engine(monkeypatch)
    counts = []
    real = choose.Choice.readout
    monkeypatch.setattr(
        choose.Choice, "readout", lambda self, x: counts.append(len(x)) or real(self, x)
    )
    for method, expected in (("dynamic, ONNX Runtime, per channel", [1, 1, 1]), ("static", [3])):
        counts.clear()
        write_graph(saved, loaded.spec, precision="int8", calibration=loss(method=method))
        loaded.encode([picture()] * 3, precision="int8", progress=False)
        assert counts == expected


def test_a_new_encoder_in_a_folder_removes_the_file_of_the_old_one(loaded, saved):
    changed_weights(loaded)
    loaded.save_pretrained(saved)
    assert not (saved / "model.onnx").exists()


def test_the_bundled_file_is_of_the_bundled_weights(tmp_path):
    folder = catalogue.BUNDLED / catalogue.DEFAULT
    described = json.loads((folder / "model.onnx.json").read_text())
    assert described["weights_sha256"] == sha256_of(folder / "model.safetensors")
    assert described["files"] == {"model.onnx": sha256_of(folder / "model.onnx")}
    assert described["any_size"]
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/model.onnx").unlink()
    assert runtime_of(pathencoder.load_encoder(tmp_path / "copy", device="cpu")) == "torch"
