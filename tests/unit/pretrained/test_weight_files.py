"""Weight files: pickles are read as tensors only, and wrapped weights are found."""

import pickle
import sys

import pytest
import torch

from pathencoder.errors import IncompatibleWeights, UnsafeWeights
from pathencoder.pretrained import weight_files


class Bomb:
    def __reduce__(self):
        return (exec, ("import sys; sys.modules['exploded'] = sys",))


@pytest.mark.parametrize("how", ["zip", "plain"])
def test_a_malicious_pickle_is_refused_unread(tmp_path, how):
    path = tmp_path / "pytorch_model.bin"
    if how == "zip":
        torch.save({"a": torch.zeros(2), "b": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"b": Bomb()}))
    with pytest.raises(UnsafeWeights, match="It was not read"):
        weight_files.read(path)
    assert "exploded" not in sys.modules


@pytest.mark.parametrize("content", [b"", b"<html>Sign in</html>", b"PK\x03\x04 truncated"])
def test_files_that_are_not_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises((UnsafeWeights, IncompatibleWeights)):
        weight_files.read(path)


WRAPPINGS = {
    "bare": lambda s: s,
    "model": lambda s: {"model": s},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "teacher": lambda s: {"student": {"a": torch.zeros(2)}, "teacher": s},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_wrapped_weights_are_found(tmp_path, wrap):
    torch.save(wrap({"a": torch.ones(2)}), tmp_path / "w.pth")
    assert weight_files.read(tmp_path / "w.pth")["a"].tolist() == [1, 1]


def test_no_tensors_anywhere(tmp_path):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    with pytest.raises(IncompatibleWeights, match="no dict of tensors"):
        weight_files.read(tmp_path / "w.pth")


def test_a_converted_copy_that_cannot_be_saved_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    weight_files.keep({"a": torch.ones(1)}, tmp_path / "file" / "below.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
