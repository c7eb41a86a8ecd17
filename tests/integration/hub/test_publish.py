"""From a run to a repository that strangers load and check, by the command."""

import json
import re
import shutil
import sys

import hub_server
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_releases import made_run

import pathencoder
from pathencoder import compat
from pathencoder.runtimes import formats, parity
from pathencoder.stream import Settings
from pathencoder.verify import verify
from training import evaluate, publish

pytestmark = [
    pytest.mark.full,
    # of the client's own code
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


def noise(seed, side=48):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def command(run, *options, answer=None, token=hub_server.GOOD_TOKEN):
    arguments = [run, "--repo", "me/small", "--token", token, *options]
    return CliRunner().invoke(publish.main, [str(a) for a in arguments], input=answer)


def published(made, *options, **more):
    done = command(made, "--yes", *options, **more)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run of 20 steps whose export is measured on a made-up set."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = made_run(folder, steps=20)
    options = {"sets": folder / "tiles", "verbs": "probe", "seeds": 1, "processes": 1}
    options |= {"data": folder, "imagenet": folder / "none", "out": run / "evaluation"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words = ["all", f"mine={run}/export", "random", *words]
    with pytest.MonkeyPatch.context() as patch:  # the figures name the command
        patch.setattr(sys, "argv", ["evaluate", *words])
        done = CliRunner().invoke(evaluate.main, words)
    assert done.exit_code == 0, done.output
    return run


@pytest.fixture
def made(evaluated, tmp_path):
    """The same, to be changed."""
    shutil.copytree(evaluated.parent, tmp_path / "made")
    return tmp_path / "made/run"


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_from_pretraining_to_a_stranger(server, made):
    tiles = [noise(seed) for seed in range(3)]
    export = pathencoder.load_encoder(made / "export", device="cpu")
    rows = export.encode(tiles, precision="fp32")
    address = published(made, "--tag", "v1.0", "--private").splitlines()[-1]
    repo = server.repos["me/small"]
    assert address == f"{server.url}/me/small/commit/{repo.tags['v1.0']}"
    assert repo.private
    repo.private = False
    theirs = pathencoder.load_encoder("me/small", revision="v1.0", device="cpu")
    np.testing.assert_array_equal(theirs.encode(tiles, precision="fp32"), rows)
    assert theirs.spec.revision == repo.tags["v1.0"]
    assert verify(theirs).ok


@pytest.mark.slow
def test_an_onnx_file_is_published_and_used(server, made):
    published(made, "--tag", "v1.0", "--with-onnx")
    card = server.repos["me/small"].at("v1.0")["README.md"].decode()
    assert "model.onnx is the same network for ONNX Runtime" in card
    theirs = pathencoder.load_encoder("me/small", revision="v1.0", device="cpu")
    assert theirs.runtime_used(Settings()).runtime == "onnx"
    tiles = [noise(seed) for seed in range(3)]
    rows = {name: theirs.encode(tiles, runtime=name) for name in ("onnx", "torch")}
    assert parity.difference(rows["onnx"], rows["torch"]) < 1e-5
    published(made, "--tag", "v1.1")  # without it, that of the other release does not stay
    assert "model.onnx" not in server.repos["me/small"].at("v1.1")


def test_without_the_packages_that_write_onnx_nothing_is_published(server, made, monkeypatch):
    monkeypatch.setitem(formats._NEEDS, ("onnx", "fp32"), ("no_such_module",))
    done = command(made, "--yes", "--with-onnx")
    assert "pathencoder[export]" in done.output
    assert done.exit_code == 1
    assert "me/small" not in server.repos


def test_the_commands_of_the_card_work(server, made, monkeypatch):
    """Read as a stranger would: both examples are executed as they stand."""
    published(made, "--tag", "v1.0")
    card = server.repos["me/small"].at("v1.0")["README.md"].decode()
    assert "all mine=me/small@v1.0 random --sets tiles --verbs probe" in card
    ours, by_timm = blocks(card)
    compat.import_timm()
    monkeypatch.chdir(made.parent)
    found = {}
    exec(ours, found)
    assert found["rows"].shape == (24, export_dim(made))
    exec(by_timm, found)
    reference = found["reference"]
    torch.testing.assert_close(reference["timm_output"], reference["embedding"], rtol=0, atol=1e-4)


def export_dim(made):
    return json.loads((made / "export/config.json").read_text())["pathencoder"]["dim"]


def test_nothing_is_sent_before_a_yes_or_in_a_dry_run(server, made):
    done = command(made, "--dry-run")
    assert (done.exit_code, server.asked) == (0, [])
    done = command(made, answer="n\n")
    assert done.exit_code == 1
    assert "the repository or branch is new" in done.output
    assert not server.repos
    assert not [method for method, _, _ in server.asked if method == "POST"]


def test_the_difference_is_shown_and_old_files_go(server, made):
    published(made, "--tag", "v1.0", "--with-state")
    first = server.repos["me/small"].refs["main"]
    shown = published(made, "--tag", "v1.1", "--note", "Chosen by folds.")
    assert f"compared with commit {first[:12]}" in shown
    assert "unchanged: LICENSE, config.json, model.safetensors" in shown
    assert "changed: README.md, metrics.json" in shown
    assert "deleted, of an earlier release: state/step-00000020/.metadata" in shown
    assert "+Chosen by folds." in shown
    repo = server.repos["me/small"]
    assert not [name for name in repo.at("main") if name.startswith("state/")]
    assert "state/step-00000020/run.json" in repo.at("v1.0")
    assert list(repo.tags) == ["v1.0", "v1.1"]


def test_a_tag_never_changes_its_files(server, made):
    published(made, "--tag", "v1.0")
    before = (dict(server.repos["me/small"].tags), len(server.repos["me/small"].commits))
    done = command(made, "--yes", "--tag", "v1.0", "--note", "Another choice.")
    assert (done.exit_code, "has the tag v1.0 already" in done.output) == (1, True)
    published(made, "--tag", "v1.0")  # the same files
    assert (dict(server.repos["me/small"].tags), len(server.repos["me/small"].commits)) == before


def test_a_branch(server, made):
    server.add("me/small", {".gitattributes": b""})
    before = server.repos["me/small"].refs["main"]
    published(made, "--branch", "next")
    assert server.repos["me/small"].refs["main"] == before
    assert pathencoder.load_encoder("me/small@next").spec.name == "small"


def test_a_card_edited_on_the_hub_is_not_overwritten(server, made):
    published(made)
    files = dict(server.repos["me/small"].at("main"))
    files["README.md"] += b"\nPlease cite our paper.\n"
    server.add("me/small", files)
    done = command(made, "--yes")
    assert (done.exit_code, "the card of me/small was edited by hand" in done.output) == (1, True)
    assert server.repos["me/small"].at("main") == files
    shown = published(made, "--overwrite-card")
    assert "-Please cite our paper." in shown


def test_a_repository_with_other_files(server, made):
    theirs = {"README.md": b"theirs", "pytorch_model.bin": b"old", ".gitattributes": b""}
    server.add("me/small", theirs)
    done = command(made, "--yes")
    assert (done.exit_code, "holds other files: pytorch_model.bin" in done.output) == (1, True)
    assert server.repos["me/small"].at("main") == theirs
    published(made, "--others", "keep")
    assert server.repos["me/small"].at("main")["pytorch_model.bin"] == b"old"
    published(made, "--others", "delete")
    assert "pytorch_model.bin" not in server.repos["me/small"].at("main")


def test_a_token_that_may_only_read(server, made):
    server.add("me/small", {".gitattributes": b""})
    done = command(made, "--yes", token=hub_server.READ_TOKEN)
    assert (done.exit_code, "may not write there" in done.output) == (1, True)
    done = command(made, "--yes", token="hf_nonsense")
    assert (done.exit_code, "does not accept the token" in done.output) == (1, True)
    assert server.repos["me/small"].at("main") == {".gitattributes": b""}


def test_a_repository_that_changed_meanwhile(server, made, monkeypatch):
    published(made)
    real = publish.difference

    def meanwhile(*given, **options):
        found = real(*given, **options)
        server.add("me/small", {**server.repos["me/small"].at("main"), "new.txt": b"theirs"})
        return found

    monkeypatch.setattr(publish, "difference", meanwhile)
    done = command(made, "--yes", "--note", "Another choice.")
    assert (done.exit_code, "has changed since it was read" in done.output) == (1, True)
    assert server.repos["me/small"].at("main")["new.txt"] == b"theirs"


def test_an_upload_that_breaks_can_be_repeated(server, made):
    server.cut_uploads = 100
    done = command(made, "--yes", "--tag", "v1.0")
    assert (done.exit_code, "Push again" in done.output) == (1, True)
    assert set(server.repos["me/small"].at("main")) == {".gitattributes"}
    assert not server.repos["me/small"].tags
    server.cut_uploads = None
    published(made, "--tag", "v1.0")
    assert verify(pathencoder.load_encoder("me/small@v1.0")).ok


def test_a_lost_answer_is_made_good_by_publishing_again(server, made):
    server.lose_answers = True
    assert command(made, "--yes", "--tag", "v1.0").exit_code == 1
    server.lose_answers = False
    repo = server.repos["me/small"]
    made_before = len(repo.commits)
    published(made, "--tag", "v1.0")
    assert (len(repo.commits), repo.tags["v1.0"]) == (made_before, repo.refs["main"])
