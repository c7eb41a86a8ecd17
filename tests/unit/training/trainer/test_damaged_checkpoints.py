"""A damaged checkpoint is reported, and the one before it is used; milestones are kept."""

import json
import logging
import re
import shutil

import pytest
import torch
from small_runs import settings, values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import StoreError
from training import config
from training.pretrain import train
from training.provenance import saved_steps

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def finished(tiles, tmp_path_factory):
    """A run with the checkpoints of steps 4 and 6."""
    return train(settings(tiles, tmp_path_factory.mktemp("run") / "run", checkpoint_every=4))


def cut(path):
    shard = max(path.glob("*.distcp"), key=lambda f: f.stat().st_size)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def overwrite(path):
    """The sizes stay, so that only reading shows it."""
    shard = max(path.glob("*.distcp"), key=lambda f: f.stat().st_size)
    shard.write_bytes(bytes(shard.stat().st_size))


DAMAGE = {
    r"__0_0\.distcp has \d+ of \d+ bytes": cut,
    r"__0_0\.distcp is missing": lambda path: (path / "__0_0.distcp").unlink(),
    r"its \.metadata cannot be read": lambda path: (path / ".metadata").write_bytes(b"\x80\x04"),
    r"its run\.json cannot be read: Exp": lambda path: (path / "run.json").write_text('{"step": 6'),
    r"its run\.json cannot be read: .*No such": lambda path: (path / "run.json").unlink(),
    r"its run\.json cannot be read: 'settings'": lambda path: (path / "run.json").write_text(
        '{"step": 6}'
    ),
    r"is damaged": overwrite,
}


@pytest.mark.parametrize("words", DAMAGE)
def test_the_checkpoint_before_a_damaged_one_is_used(tiles, finished, tmp_path, caplog, words):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "export")
    DAMAGE[words](run / "checkpoints/step-00000006")
    cfg = settings(tiles, run, checkpoint_every=4)
    with caplog.at_level(logging.WARNING):
        train(cfg)
    said = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
    assert len(said) == 1
    assert re.search(words, said[0])
    assert "kept as damaged-step-00000006; the run resumes from step 4" in said[0]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "damaged-step-00000006",
        "step-00000004",
        "step-00000006",
    ]
    a, b = (load_encoder(str(f / "export")).state_dict() for f in (finished, run))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_without_a_good_checkpoint_says_what_to_do(tiles, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        (path / "__0_0.distcp").unlink()
    for _ in range(2):  # nothing is renamed, so that no later start begins again unasked
        with pytest.raises(StoreError, match=r"Copy one back from a backup, or begin again in an"):
            train(settings(tiles, run))
    other = values(tiles, tmp_path / "other")
    other["start_from"] = str(run)
    with pytest.raises(StoreError, match=r"start_from .* no checkpoint can be read.*Give another"):
        train(config.check(other))


def test_start_from_uses_the_newest_good_checkpoint(tiles, finished, tmp_path, caplog):
    run = shutil.copytree(finished, tmp_path / "run")
    cut(run / "checkpoints/step-00000006")
    other = values(tiles, tmp_path / "other", minutes=1e-9)
    other["start_from"] = str(run)
    with caplog.at_level(logging.WARNING):
        train(config.check(other))
    assert "step 4 is used instead" in caplog.text
    # another run's folder stays as it is
    assert (run / "checkpoints/step-00000006").is_dir()


def test_milestones_are_kept(tiles, tmp_path):
    run = train(settings(tiles, tmp_path / "run", checkpoint_every=1, keep_every=2))
    steps = [json.loads(p.read_text())["step"] for p in run.glob("checkpoints/step-*/run.json")]
    assert sorted(steps) == [2, 4, 5, 6]
    run = train(settings(tiles, tmp_path / "rare", checkpoint_every=100, keep_every=2))
    assert saved_steps.path_of(run, 2).is_dir()
