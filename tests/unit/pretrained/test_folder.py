"""An encoder folder is written atomically and read back unchanged."""

import dataclasses
import json
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pathencoder.errors import ConfigError, StoreError
from pathencoder.pretrained import folder, weight_files
from pathencoder.spec import EncoderSpec

SPEC = EncoderSpec(
    name="x",
    architecture="resnet18",
    dim=4,
    width=4,
    input_size=32,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    layout="dinov2",
)
STATE = {"a": torch.arange(6.0).view(2, 3).half(), "b": torch.tensor(3)}
TILE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
VECTOR = np.arange(4, dtype=np.float32)


def written(path, **given):
    return folder.write_folder(
        path, SPEC, STATE, reference_tile=TILE, reference_embedding=VECTOR, **given
    )


def test_what_is_written_is_read_back(tmp_path):
    spec = written(tmp_path / "e", card="# x", licence="free", metrics={"auroc": 0.9})
    assert folder.read_spec(tmp_path / "e") == spec
    assert spec == dataclasses.replace(
        SPEC, layout="timm", files=("model.safetensors",), sha256=spec.sha256
    )
    assert spec.sha256 == folder.sha256_of(tmp_path / "e" / "model.safetensors")
    state = load_file(tmp_path / "e" / "model.safetensors")
    assert all(torch.equal(state[k], v) and state[k].dtype == v.dtype for k, v in STATE.items())
    reference = folder.read_reference(tmp_path / "e")
    assert np.array_equal(reference.tile, TILE)
    assert np.array_equal(reference.embedding, VECTOR)
    assert (tmp_path / "e" / "README.md").read_text() == "# x"
    assert (tmp_path / "e" / "LICENSE").read_text() == "free"
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == {"auroc": 0.9}
    assert {"torch", "timm", "pathencoder"} <= set(
        folder.read_config(tmp_path / "e")["pathencoder"]["versions"]
    )


def test_nothing_is_left_beside_it(tmp_path):
    written(tmp_path / "e")
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_every_file_is_readable_like_any_other(tmp_path):
    written(tmp_path / "e")
    (tmp_path / "plain").touch()
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "e").iterdir()} == {expected}


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        folder,
        "_write_json",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(StoreError, match="No space left"):
        written(tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_one(tmp_path, monkeypatch):
    before = written(tmp_path / "e")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(weight_files, "save", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(StoreError):
        written(tmp_path / "e")
    assert folder.read_spec(tmp_path / "e") == before
    assert folder.sha256_of(tmp_path / "e" / "model.safetensors") == before.sha256


def test_overwriting_keeps_other_files_and_removes_stale_ones(tmp_path):
    written(tmp_path / "e", card="old", metrics={"old": 1})
    (tmp_path / "e" / "notes.txt").write_text("mine")
    folder.write_folder(tmp_path / "e", SPEC, {"a": torch.zeros(1)}, card="new")
    names = {p.name for p in (tmp_path / "e").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "notes.txt"}
    assert folder.read_reference(tmp_path / "e") is None


def test_half_a_reference_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="both"):
        folder.write_folder(tmp_path / "e", SPEC, STATE, reference_tile=TILE)
    with pytest.raises(ConfigError, match="uint8"):
        folder.write_folder(
            tmp_path / "e",
            SPEC,
            STATE,
            reference_tile=TILE.astype(float),
            reference_embedding=VECTOR,
        )


@pytest.mark.parametrize(
    ("content", "message"), [(None, "holds no config.json"), ("{", "JSON"), ("[1]", "JSON object")]
)
def test_other_folders_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        folder.read_spec(tmp_path)


def test_shared_tensors_are_written_apart(tmp_path):
    base = torch.arange(4.0)
    folder.write_folder(tmp_path / "e", SPEC, {"a": base, "b": base[1:3], "c": base.view(2, 2).T})
    assert torch.equal(load_file(tmp_path / "e" / "model.safetensors")["c"], base.view(2, 2).T)


def test_a_damaged_reference_is_named(tmp_path):
    written(tmp_path / "e")
    file = tmp_path / "e" / "reference.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"reference\.safetensors is damaged .*again"):
        folder.read_reference(tmp_path / "e")


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    written("~/e")
    folder.copy_folder(tmp_path / "home" / "e", "~/copy")
    assert sorted(p.name for p in (tmp_path / "home").iterdir()) == ["copy", "e"]
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
