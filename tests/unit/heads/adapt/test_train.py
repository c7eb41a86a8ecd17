"""Which weights are trained, at what rates; exact resume; a loss that is not a number."""

import dataclasses

import numpy as np
import pytest
import small_encoders
import small_tiles
import torch

from pathencoder.errors import ConfigError
from pathencoder.heads.adapt import checkpoint, parts, train, unfreeze
from pathencoder.heads.adapt.learner import Learner
from pathencoder.heads.adapt.options import Options
from pathencoder.heads.adapt.tiles import Tiles, batches
from pathencoder.heads.linear import Linear
from pathencoder.heads.rows import Scaling

pytestmark = pytest.mark.full

CLASSES = ("benign", "malignant")
IMAGES = [small_tiles.tile(CLASSES[i % 2], i) for i in range(16)]


def learner(kind="cnn", **settings):
    encoder = small_encoders.shared(kind)
    rows = encoder.encode(IMAGES, progress=False).astype(np.float64)
    head = Linear(Scaling.of(rows), np.zeros((encoder.dim, 2)), np.zeros(2))
    return Learner(encoder, head, Options(**{"epochs": 3, "batch": 4, **settings}))


@pytest.fixture
def task():
    tiles = Tiles(small_encoders.shared("cnn").transform, IMAGES, [str(i) for i in range(16)], None)
    y = np.arange(16) % 2
    return train.Task(tiles, y, np.ones(16), np.arange(10), np.arange(10, 16))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("how", ["lora", "last"])
def test_a_killed_run_ends_as_an_undisturbed_one_bit_for_bit(
    task, tmp_path, monkeypatch, kind, how
):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    stages = 1 if how == "last" else None
    whole = learner(kind, how=how, stages=stages)
    epochs = train.train(whole, task)
    assert train.best_of(epochs) > 0
    first = learner(kind, how=how, stages=stages)
    kept = checkpoint.Checkpoint(tmp_path / "state/fit-0.pt", "key")

    def kill(done, most):
        if done == 5:  # within the second epoch
            raise Killed

    with pytest.raises(Killed):
        train.train(first, task, kept, kill)
    second, seen = learner(kind, how=how, stages=stages), []
    again = checkpoint.Checkpoint(kept.file, "key")
    found = train.train(second, task, again, lambda done, most: seen.append((done, most)))
    assert seen[0] == (5, 9)
    assert repr(found) == repr(epochs)
    theirs = second.state()["weights"]
    for name, value in whole.state()["weights"].items():
        assert torch.equal(value, theirs[name]), name
    # an ended run ends at once
    assert repr(train.train(learner(kind, how=how, stages=stages), task, again)) == repr(epochs)


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_not_used(task, tmp_path, caplog):
    kept = checkpoint.Checkpoint(tmp_path / "fit-0.pt", "key")
    train.train(learner(), task, kept)
    assert checkpoint.Checkpoint(kept.file, "other").read() is None
    assert "not used" in caplog.text
    kept.file.write_bytes(kept.file.read_bytes()[:100])
    assert kept.read() is None
    assert "from the beginning" in caplog.text
    checkpoint.remove(tmp_path)
    assert not tmp_path.exists()


def test_a_loss_that_is_not_a_number_is_an_error(task):
    with pytest.raises(ConfigError, match=r"the loss is nan at step \d+ .*Give a lower rate"):
        train.train(learner(how="all", rate=1e30), task)


@pytest.mark.parametrize("rate", [1e20, 1e36])
def test_a_last_step_that_diverges_is_an_error(task, rate):
    alone = dataclasses.replace(task, stop=np.arange(0))
    model = learner("vit", how="all", epochs=1, batch=16, rate=rate)
    with pytest.raises(ConfigError, match=r"epoch 1 are not finite.*Give a lower rate"):
        train.train(model, alone)


def test_a_batch_that_does_not_fit_into_memory_is_named(task, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Learner, "loss", full)
    with pytest.raises(ConfigError, match=r"4 images at a time .* batch=2 may"):
        train.train(learner(), task)


def test_the_best_epoch_is_kept_and_patience_ends_the_training(task, monkeypatch):
    losses = iter([1.0, 0.5, 0.7, 0.8, 0.1])
    monkeypatch.setattr(train, "_stop_loss", lambda *_: next(losses))
    model, states = learner(how="last", stages=1, epochs=9, patience=2), []

    def note(done, most):
        if done % 3 == 0:
            states.append(model.average())

    epochs = train.train(model, task, None, note)
    assert [epoch.number for epoch in epochs] == [0, 1, 2, 3]
    assert train.best_of(epochs) == 1
    for name, value in model.state()["weights"].items():
        assert torch.equal(value, states[1][name])  # after three steps


def test_an_epoch_that_is_too_sure_but_orders_the_images_better_is_kept(task, monkeypatch):
    # of images 10 to 15; even numbers are benign
    timid, sure = [-0.1, 0.1, 0.1, 0.2, 0.1, 0.1], [-40, 30, -20, 30, 10, 30]
    margins = iter([[0.0] * 6, timid, sure])
    monkeypatch.setattr(
        Learner, "logits", lambda *_: np.stack([np.zeros(6), np.array(next(margins))], 1)
    )
    epochs = train.train(learner(how="last", stages=1, epochs=2), task)
    assert train.best_of(epochs) == 2


def test_an_epoch_without_finite_scores_is_not_kept(task, monkeypatch):
    scores = iter([np.zeros((6, 2)), np.full((6, 2), np.nan), np.full((6, 2), np.nan)])
    monkeypatch.setattr(Learner, "logits", lambda *_: next(scores))
    model = learner(how="last", stages=1, epochs=2)
    before = model.average()
    assert train.best_of(train.train(model, task)) == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state()["weights"].items())


def test_running_statistics_do_not_move_and_frozen_stages_stay(task):
    model = learner(how="last", stages=1, rate=1e-2)
    before = {k: v.clone() for k, v in model.encoder.network.state_dict().items()}
    train.train(model, dataclasses.replace(task, stop=np.arange(0)))
    after = model.encoder.network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    last = max(parts.depths(dict(model.encoder.network.named_parameters())).values())
    assert moved
    assert not {name for name in moved if "running" in name or "num_batches" in name}
    depth = parts.depths(dict(model.encoder.network.named_parameters()))
    assert {depth[name] for name in moved} == {last}


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_rates_fall_from_the_last_stage_to_the_first(kind):
    model = learner(kind, how="all", rate=1e-3, layer_decay=0.5)
    groups = model.optimiser.param_groups
    rates = {id(p): group["highest"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(model.encoder.network.named_parameters())
    depth = parts.depths(named)
    last = max(depth.values())
    for name, parameter in named.items():
        assert rates[id(parameter)] == 1e-3 * 0.5 ** (last - depth[name])
        assert (decays[id(parameter)] > 0) == (parameter.ndim > 1)
    first = next(iter(named))
    assert depth[first] == 0


def test_stages_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"stages=99: the embedding of small-cnn depends on \d+"):
        learner(how="last", stages=99)


def test_the_last_third_counts_only_stages_that_the_embedding_depends_on():
    whole = small_encoders.encoder("cnn")
    count = max(parts.depths(dict(whole.network.named_parameters())).values())
    assert unfreeze.last_third(whole.network, whole.spec) == -(-count // 3)
    used = parts.used(
        whole.network, whole.spec.__class__(**{**vars(whole.spec), "embedding": "stages:blocks.0"})
    )
    depth = parts.depths(dict(whole.network.named_parameters()))
    assert {depth[name] for name in used} == {0, 1}


def test_batches_follow_from_seed_epoch_and_place(task):
    every = list(batches(task.tiles, task.fit, 4, 0, 1, 0))
    assert [len(rows) for rows, _ in every] == [4, 4, 2]
    assert sorted(np.concatenate([rows for rows, _ in every])) == list(range(10))
    later = list(batches(task.tiles, task.fit, 4, 0, 1, 1))
    for (rows, views), (same_rows, same_views) in zip(every[1:], later, strict=True):
        assert (rows == same_rows).all()
        assert torch.equal(views, same_views)
    other = next(iter(batches(task.tiles, task.fit, 4, 0, 2, 0)))
    assert not torch.equal(other[1], every[0][1])


def test_views_are_of_the_image_in_the_encoders_values():
    image = np.full((64, 64, 3), 200, np.uint8)
    encoder = small_encoders.shared("cnn")
    tiles = Tiles(encoder.transform, [image], ["0"], None)
    view = tiles.view(0, (0, 0, 0))
    assert view.shape == (3, 64, 64)
    assert 120 < view.mean() < 255
    x = tiles.normalised([torch.full((3, 64, 64), 200.0)])
    torch.testing.assert_close(x, encoder.transform.normalise(image[None]))
