"""An encoder to a folder, a pickle or the Hub: what came with it goes along, and what no longer holds stays behind."""

import pickle

import numpy as np
import pytest
import torch
from small_encoders import encoder, picture, shared

import pathencoder
from pathencoder import folder as folders
from pathencoder import saving
from pathencoder.encoder import Encoder
from pathencoder.errors import StoreError


def arrays(count):
    return [picture(i, 80, 72) for i in range(count)]


def test_pickling_keeps_encoder_and_transform():
    enc = shared("vit")
    again = pickle.loads(pickle.dumps(enc))
    assert again.spec == enc.spec
    np.testing.assert_array_equal(again.encode(arrays(2)), enc.encode(arrays(2)))


def with_folder(tmp_path):
    """An encoder that came from a folder with everything that a folder may hold."""
    enc = encoder("vit")
    tile = picture(3)
    source = tmp_path / "source"
    embedding = enc.encode(tile)[0]
    enc.spec = folders.write_folder(
        source,
        enc.spec,
        enc.network.state_dict(),
        reference_tile=tile,
        reference_embedding=embedding,
        card="# card\n",
        licence="licence\n",
        metrics={"auroc": 0.9},
    )
    enc.folder = source
    return enc


def test_what_came_with_an_encoder_goes_along(tmp_path):
    enc = with_folder(tmp_path)
    enc.save_pretrained(tmp_path / "copy")
    for path in enc.folder.iterdir():
        copied = tmp_path / "copy" / path.name
        if path.name != folders.REFERENCE:
            assert copied.read_bytes() == path.read_bytes(), path.name
    again, first = (folders.read_reference(f) for f in (tmp_path / "copy", enc.folder))
    np.testing.assert_array_equal(again.tile, first.tile)
    np.testing.assert_allclose(again.embedding, first.embedding, atol=1e-5)
    loaded = Encoder.from_pretrained(tmp_path / "copy", device="cpu")
    assert isinstance(loaded, Encoder)
    np.testing.assert_array_equal(loaded.encode(arrays(2)), enc.encode(arrays(2)))


def test_changed_weights_leave_the_old_figures_behind_and_renew_the_reference(tmp_path):
    enc = with_folder(tmp_path)
    with torch.no_grad():
        enc.network.norm.bias.add_(1)
    enc.save_pretrained(tmp_path / "tuned")
    assert not (tmp_path / "tuned" / folders.METRICS).exists()
    reference = folders.read_reference(tmp_path / "tuned")
    np.testing.assert_allclose(reference.embedding, enc.encode(reference.tile)[0], atol=1e-5)


def test_an_encoder_without_a_folder_can_be_saved(tmp_path):
    enc = encoder("cnn")
    enc.network.to(memory_format=torch.channels_last)
    enc.save_pretrained(tmp_path / "new")
    loaded = pathencoder.load_encoder(tmp_path / "new", device="cpu")
    np.testing.assert_allclose(loaded.encode(arrays(2)), enc.encode(arrays(2)), atol=1e-5)


class Hub:
    """Stands in for huggingface_hub's client: keeps what it is given."""

    calls: list = []  # noqa: RUF012
    error = None

    def __init__(self, token=None):
        self.calls.append(("token", token))

    def create_repo(self, repo, *, private, exist_ok):
        self.calls.append(("repo", repo, private, exist_ok))
        if self.error:
            raise self.error

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(p.name for p in folder_path.iterdir()), commit_message))
        return f"https://example.org/{repo_id}/commit/1"


def test_push_to_hub_uploads_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls.clear()
    address = with_folder(tmp_path).push_to_hub("me/mine", private=True, token="t", message="first")
    assert address == "https://example.org/me/mine/commit/1"
    files = sorted([folders.CONFIG, folders.WEIGHTS, folders.REFERENCE, folders.CARD, folders.LICENCE, folders.METRICS])
    assert Hub.calls == [("token", "t"), ("repo", "me/mine", True, True), ("upload", "me/mine", files, "first")]
    monkeypatch.setattr(Hub, "error", OSError("401 Unauthorized"))
    with pytest.raises(StoreError, match=r"me/mine could not be uploaded: 401 Unauthorized.*token"):
        saving.push(encoder("cnn"), "me/mine", private=None, token=None, message="x")
