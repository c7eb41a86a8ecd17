"""Uploading with the real huggingface_hub client, to a real HTTP server on loopback."""

import hashlib

import hub_server
import pytest
import torch
from hub_case import ours
from huggingface_hub import constants

import pathencoder
from pathencoder.errors import ChecksumError, ConfigError, OfflineError, StoreError
from pathencoder.pretrained import folder as folders
from pathencoder.verify import verify

# of the client's own code
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FILES = sorted([*(set(folders.FILES) - set(folders.GRAPH)), ".gitattributes"])
WITHOUT_METRICS = [name for name in FILES if name != folders.METRICS]
TOKEN = {"token": hub_server.GOOD_TOKEN}


@pytest.fixture
def encoder(tmp_path):
    return pathencoder.load_encoder(place(tmp_path), device="cpu")


def place(tmp_path, seed=0):
    """The folder of a small encoder, with figures."""
    ours(tmp_path, seed)
    (tmp_path / f"written{seed}/metrics.json").write_text('{"auroc": 0.9}')
    return tmp_path / f"written{seed}"


def changed(encoder):
    with torch.no_grad():
        encoder.network.norm.weight += 1
    return encoder


def names(server, repo="me/mine", revision="main"):
    return sorted(server.repos[repo].at(revision))


def uploads(server):
    return [path for method, path, _ in server.asked if method == "PUT"]


def test_what_is_pushed_is_loaded_by_revision(server, encoder):
    address = encoder.push_to_hub("me/mine", private=True, commit_message="first", **TOKEN)
    repo = server.repos["me/mine"]
    first = repo.refs["main"]
    assert address == f"{server.url}/me/mine/commit/{first}"
    assert (repo.private, repo.messages[first], names(server)) == (True, "first", FILES)
    changed(encoder).push_to_hub("me/mine", **TOKEN)
    assert names(server) == WITHOUT_METRICS
    second = repo.refs["main"]
    assert second != first
    old = pathencoder.load_encoder("me/mine", revision=first, **TOKEN)
    new = pathencoder.load_encoder("me/mine", revision=second, **TOKEN)
    assert (old.spec.revision, new.spec.revision) == (first, second)
    assert verify(old).ok
    assert verify(new).ok
    assert torch.equal(new.network.norm.weight, encoder.network.norm.weight)
    assert torch.equal(new.network.norm.weight, old.network.norm.weight + 1)


def test_a_large_file_goes_up_in_parts_without_the_token(server, encoder):
    server.part_size = 10_000
    encoder.push_to_hub("me/mine", **TOKEN)
    sent = [h for method, path, h in server.asked if method == "PUT" and path.count("/") == 3]
    assert len(sent) > 3
    assert not any("authorization" in headers for headers in sent)
    assert verify(pathencoder.load_encoder("me/mine")).ok


def test_an_unchanged_encoder_is_not_sent_again(server, encoder):
    address = encoder.push_to_hub("me/mine", **TOKEN)
    commits, sent = len(server.repos["me/mine"].commits), len(uploads(server))
    assert encoder.push_to_hub("me/mine", **TOKEN) == address
    assert (len(server.repos["me/mine"].commits), len(uploads(server))) == (commits, sent)


def test_a_branch_is_made_and_main_stays(server, encoder):
    encoder.push_to_hub("me/mine", **TOKEN)
    before = dict(server.repos["me/mine"].refs)
    changed(encoder).push_to_hub("me/mine", branch="dev", **TOKEN)
    assert server.repos["me/mine"].refs["main"] == before["main"]
    loaded = pathencoder.load_encoder("me/mine@dev")
    assert torch.equal(loaded.network.norm.weight, encoder.network.norm.weight)


def test_a_pull_request(server, encoder):
    encoder.push_to_hub("me/mine", **TOKEN)
    before = dict(server.repos["me/mine"].refs)
    changed(encoder).push_to_hub("me/mine", create_pr=True, **TOKEN)
    assert set(server.repos["me/mine"].refs) == {*before, "refs/pr/1"}
    assert names(server, revision="refs/pr/1") == WITHOUT_METRICS
    assert names(server) == FILES


def test_other_files_of_a_repository_stay_unless_they_are_named(server, encoder):
    there = {"README.md": b"theirs", "pytorch_model.bin": b"old", ".gitattributes": b""}
    server.add("me/mine", there)
    encoder.push_to_hub("me/mine", ignore_patterns="*.md", **TOKEN)
    assert names(server) == sorted([*FILES, "pytorch_model.bin"])
    assert server.repos["me/mine"].at("main")["README.md"] == b"theirs"
    encoder.push_to_hub("me/mine", delete_patterns="*.bin", **TOKEN)
    assert names(server) == FILES


def test_saving_can_push_too(server, encoder, tmp_path):
    address = encoder.save_pretrained(
        save_directory=tmp_path / "mine", push_to_hub=True, repo_id="me/other", **TOKEN
    )
    assert address.startswith(f"{server.url}/me/other/commit/")
    encoder.save_pretrained(tmp_path / "mine", push_to_hub=True, **TOKEN)
    assert names(server) == names(server, "me/other") == FILES  # the account's own, by the folder
    with pytest.raises(ConfigError, match=r"repo_id, token: only .* push_to_hub=True"):
        encoder.save_pretrained(tmp_path / "mine", repo_id="me/other", **TOKEN)


# Refusals


REFUSED = {
    "wrong": ("hf_nonsense", "does not accept the token, or none was given"),
    "none": (False, "does not accept the token, or none was given"),
    "read only": (hub_server.READ_TOKEN, r"required permissions.*may not write there"),
    "of another account": (hub_server.OTHER_TOKEN, r"required permissions.*may not write there"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_token_that_may_not_write(server, encoder, kind):
    token, message = REFUSED[kind]
    server.add("me/mine", {"README.md": b"theirs"})
    before = dict(server.repos["me/mine"].refs)
    with pytest.raises(StoreError, match=f"me/mine could not be uploaded: .*{message}.*HF_TOKEN"):
        encoder.push_to_hub("me/mine", token=token)
    assert server.repos["me/mine"].refs == before
    assert not uploads(server)


def test_a_repository_of_others_is_not_made(server, encoder):
    with pytest.raises(StoreError, match=r"theirs/new could not be uploaded.*may not write there"):
        encoder.push_to_hub("theirs/new", token=hub_server.READ_TOKEN)
    assert not server.repos


def test_the_network_is_disabled(server, encoder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="cannot be uploaded: HF_HUB_OFFLINE is set"):
        encoder.push_to_hub("me/mine", **TOKEN)
    assert not server.asked


def test_a_card_that_the_hub_refuses(server, encoder):
    card = encoder.origin.folder / "README.md"
    card.write_text("---\nlicense: [1, 2]\n---\n" + card.read_text())
    with pytest.raises(StoreError, match=r"license.*must be a string"):
        encoder.push_to_hub("me/mine", **TOKEN)
    assert names(server) == [".gitattributes"]


# The network fails


def test_an_upload_that_breaks_leaves_the_old_encoder_and_goes_on(server, encoder):
    encoder.push_to_hub("me/mine", **TOKEN)
    changed(encoder)
    server.part_size, server.cut_uploads = 60_000, 1_000
    with pytest.raises(StoreError, match=r"could not be uploaded.*all old files.*Push again"):
        encoder.push_to_hub("me/mine", **TOKEN)
    assert names(server) == FILES
    assert verify(pathencoder.load_encoder("me/mine")).ok
    server.cut_uploads = None
    before = len(uploads(server))
    encoder.push_to_hub("me/mine", **TOKEN)
    reference = hashlib.sha256(server.repos["me/mine"].at("main")["reference.safetensors"])
    again = [path for path in uploads(server)[before:] if reference.hexdigest() in path]
    assert len(again) <= 1
    loaded = pathencoder.load_encoder("me/mine", force_download=True)
    assert torch.equal(loaded.network.norm.weight, encoder.network.norm.weight)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(server, encoder):
    server.lose_answers = True
    with pytest.raises(StoreError, match="all new ones if only the answer was lost"):
        encoder.push_to_hub("me/mine", **TOKEN)
    server.lose_answers = False
    repo = server.repos["me/mine"]
    made, sent = len(repo.commits), len(uploads(server))
    address = encoder.push_to_hub("me/mine", **TOKEN)
    assert address.endswith(f"/commit/{repo.refs['main']}")
    assert (len(repo.commits), len(uploads(server))) == (made, sent)


def test_weights_that_change_on_the_way_are_refused_and_fetched_again(server, encoder):
    encoder.push_to_hub("me/mine", **TOKEN)
    server.spoil = True
    with pytest.raises(ChecksumError, match=r"sha256 is .*force_download"):
        pathencoder.load_encoder("me/mine")
    with pytest.raises(ChecksumError):  # the cache has the damaged file
        pathencoder.load_encoder("me/mine")
    assert verify(pathencoder.load_encoder("me/mine", force_download=True)).ok
    assert verify(pathencoder.load_encoder("me/mine")).ok


def test_a_private_repository_needs_the_token_once(server, encoder, monkeypatch):
    encoder.push_to_hub("me/mine", private=True, **TOKEN)
    with pytest.raises(pathencoder.errors.UnknownEncoder, match="it is private"):
        pathencoder.load_encoder("me/mine")
    pathencoder.load_encoder("me/mine", token=hub_server.READ_TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.asked)
    assert verify(pathencoder.load_encoder("me/mine")).ok
    assert len(server.asked) == asked
