"""The ONNX file of a repository: downloaded where it is used, and of the weights beside it."""

import json

import pytest
import torch
from fake_runtimes import use_engine, write_graph
from hub_case import ours

import pathencoder
from pathencoder.errors import ChecksumError, ConfigError
from pathencoder.pretrained import graph_files, locate
from pathencoder.pretrained.folder import GRAPH, read_spec
from pathencoder.runtimes import choose
from pathencoder.stream import Settings


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """A library that runs ONNX files is installed."""
    use_engine(monkeypatch)
    monkeypatch.setattr(graph_files, "_RUNTIMES", ("no_such_module", "json"))
    choose._warn_once.cache_clear()


def with_graph(tmp_path, **changes):
    """The files of a repository with model.onnx and its JSON."""
    ours(tmp_path)
    folder = tmp_path / "written0"
    write_graph(folder, read_spec(folder), **changes)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def load(**options):
    return pathencoder.load_encoder("owner/small", **{"device": "cpu", **options})


def runtime_of(encoder, runtime="auto"):
    return encoder.runtime_used(Settings(runtime=runtime)).runtime


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_it_is_used_and_works_offline_after_one_load(server, tmp_path, monkeypatch, how):
    server.add("owner/small", with_graph(tmp_path))
    assert runtime_of(load()) == "onnx"
    asked = len(server.asked)
    if how == "variable":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = load(**({"local_files_only": True} if how == "argument" else {}))
    assert (runtime_of(again), runtime_of(again, "onnx")) == ("onnx", "onnx")
    assert len(server.asked) == asked


def test_it_is_not_downloaded_where_it_would_not_be_used(server, tmp_path, monkeypatch):
    server.add("owner/small", with_graph(tmp_path))
    load(dtype="bf16")
    load(pretrained=False)
    with monkeypatch.context() as patch:  # as on a GPU
        patch.setattr("pathencoder.runtime.pick_device", lambda _: torch.device("meta"))
        load()
    monkeypatch.setattr(graph_files, "_RUNTIMES", ("no_such_module",))
    assert runtime_of(load()) == "torch"
    assert not any(server.gets(name) for name in GRAPH)
    locate.fetch("owner/small")  # for a machine that may have the library
    assert server.gets("model.onnx")
    monkeypatch.setattr(graph_files, "_RUNTIMES", ("json",))
    assert runtime_of(load(local_files_only=True)) == "onnx"


def test_one_of_other_weights_is_not_downloaded(server, tmp_path, caplog):
    server.add("owner/small", with_graph(tmp_path, weights_sha256="0" * 64))
    encoder = load()
    assert "owner/small: its model.onnx is not used: model.onnx.json says" in caplog.text
    assert not server.gets("model.onnx")
    assert runtime_of(encoder) == "torch"
    with pytest.raises(ConfigError, match=r"no exported file \(model\.onnx\) beside its weights"):
        runtime_of(encoder, "onnx")


def test_a_damaged_one_is_refused_and_fetched_again(server, tmp_path, caplog):
    files = with_graph(tmp_path)
    server.add("owner/small", {**files, "model.onnx": b"changed on the way"})
    encoder = load()
    with pytest.raises(ChecksumError, match=r"model\.onnx is damaged.*force_download=True"):
        runtime_of(encoder, "onnx")
    assert runtime_of(encoder) == "torch"
    assert "small runs in torch" in caplog.text
    server.add("owner/small", files)
    assert runtime_of(load(force_download=True)) == "onnx"


@pytest.mark.parametrize("content", [b"no JSON", b'{"files": ["../config.json"]}', b"[1]"])
def test_a_json_of_any_content_does_not_stop_the_encoder(server, tmp_path, content):
    files = with_graph(tmp_path)
    server.add("owner/small", {**files, "model.onnx.json": content})
    assert runtime_of(load()) == "torch"


def test_only_the_files_of_an_export_are_asked_for(server, tmp_path):
    files = with_graph(tmp_path)
    described = json.loads(files["model.onnx.json"])
    described["files"] = {"../../outside": "0" * 64, "model.onnx.data": "1" * 64}
    server.add(
        "owner/small",
        {**files, "model.onnx.json": json.dumps(described).encode(), "model.onnx.data": b"x"},
    )
    load()
    assert not any("outside" in path for _, path, _ in server.asked)
    assert server.gets("model.onnx.data")


def test_a_copy_keeps_it(server, tmp_path):
    files = with_graph(tmp_path)
    server.add("owner/small", files)
    load().save_pretrained(tmp_path / "copy")
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == files
