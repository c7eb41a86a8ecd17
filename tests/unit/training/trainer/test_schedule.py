"""The length of a run: fitted to its time, kept on resume, changed under a constant rate."""

import json

import pytest
from paths import ROOT
from small_runs import settings, values, write_tiles

from pathencoder.errors import ConfigError, StoreError
from training import config
from training.pretrain import train
from training.provenance import saved_steps
from training.schedules import warmup_constant
from training.trainer import changes, fit
from training.trainer.optimizer import rate_of

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_rate_of_zero_stays_zero_whatever_the_end_of_the_schedule(schedule):
    o = config.OptimSettings(steps=9, schedule=schedule, warmup=2, lr=0, lr_end=1e-3)
    assert [rate_of(o, o.lr, step) for step in range(10)] == [0.0] * 10
    assert rate_of(o, 2e-3, 9) == pytest.approx(1e-3)


def test_warmup_constant_has_its_closed_form():
    rates = [warmup_constant(8.0, 1.0, s, 20, warmup=4, cooldown=7) for s in range(21)]
    assert rates[:4] == [2.0, 4.0, 6.0, 8.0]
    assert rates[4:14] == [8.0] * 10
    assert rates[13:] == pytest.approx([8 - 7 * i / 7 for i in range(8)])
    longer = [warmup_constant(8.0, 1.0, s, 99, warmup=4, cooldown=7) for s in range(21)]
    assert longer[:14] == rates[:14]


def test_steps_that_fit_into_a_time_leave_room_for_all_else():
    times = fit.Times(opening=5.0, knn=10.0, step=0.5, trial=20.0)
    # 300 s less 5 %, the trial, the opening and two measurements of k-NN
    assert fit.steps_for(300, times, 0) == int((285 - 20 - 5 - 20) / 0.5)
    assert fit.steps_for(300, times, 100) == int(240 / (0.5 + 0.1))
    assert fit.steps_for(1, times, 0) == 1


def test_minutes_alone_ask_for_a_fit(tmp_path):
    recipe, root = ROOT / "training/recipes/simclr_tiny_cpu.yaml", "data.root=tiles"
    assert config.load(recipe, [root, "minutes=5"]).run.fit_steps
    for others in ([], ["minutes=5", "steps=9"], ["minutes=null"]):
        assert not config.load(recipe, [root, *others]).run.fit_steps


def short_trial(monkeypatch, steps):
    monkeypatch.setattr(fit, "steps_for", lambda seconds, times, knn_every: steps)


def test_a_fitted_length_is_recorded_and_kept_on_resume(tiles, tmp_path, monkeypatch, caplog):
    asked = values(tiles, tmp_path / "run", minutes=30, fit_steps=True)
    asked["optim"] = {"steps": 500, "warmup": 50}
    short_trial(monkeypatch, 4)
    run = train(config.check(asked))
    assert saved_steps.latest(run).name == "step-00000004"
    optim = json.loads((saved_steps.latest(run) / "run.json").read_text())["settings"]["optim"]
    assert (optim["steps"], optim["warmup"]) == (4, 0)
    assert config.load(run / "config.yaml").optim.steps == 4
    assert "only 4 steps fit into 30 minutes" in caplog.text
    kept = values(tiles, tmp_path / "kept", minutes=30, fit_steps=True)
    kept["optim"] = {**asked["optim"]}
    whole = {**kept, "optim": {"steps": 4, "warmup": 0}}
    whole["run"] = {**kept["run"], "minutes": 1e-9, "fit_steps": False}
    train(config.check(whole))  # one step, of the fitted schedule
    short_trial(monkeypatch, 9)
    train(config.check(kept))
    assert saved_steps.latest(tmp_path / "kept").name == "step-00000004"
    ends = [json.loads(x)["loss"] for x in (run / "log.jsonl").read_text().splitlines()]
    resumed = (tmp_path / "kept/log.jsonl").read_text().splitlines()
    assert [json.loads(x)["loss"] for x in resumed] == ends


def test_a_record_without_a_checkpoint_is_kept_too(tiles, tmp_path, monkeypatch):
    short_trial(monkeypatch, 9)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/schedule.json").write_text('{"steps": 2, "warmup": 1}')
    train(settings(tiles, tmp_path / "run", minutes=30, fit_steps=True))
    assert saved_steps.latest(tmp_path / "run").name == "step-00000002"


def test_a_length_is_known_by_an_older_checkpoint_where_the_newest_is_damaged(
    tiles, tmp_path, monkeypatch
):
    asked = values(tiles, tmp_path / "run", minutes=30, fit_steps=True, checkpoint_every=2)
    asked["optim"] = {"steps": 500, "warmup": 50}
    short_trial(monkeypatch, 3)
    run = train(config.check(asked))
    (saved_steps.latest(run) / "run.json").write_text('{"step": 3')
    short_trial(monkeypatch, 9)
    train(config.check(asked))
    assert saved_steps.latest(run).name == "step-00000003"
    for path in saved_steps.newest_first(run):
        (path / "run.json").write_text("")
    with pytest.raises(StoreError, match="Copy one back from a backup, or begin again"):
        train(config.check(asked))


def constant(tiles, out, steps, **run):
    asked = values(tiles, out, **run)
    asked["optim"] = {"steps": steps, "warmup": 2, "schedule": "constant", "cooldown": 0.25}
    return config.check(asked)


def test_a_run_with_a_constant_rate_can_be_lengthened(tiles, tmp_path):
    """Grown before its cooldown, it is the run that had all steps from the start."""
    train(constant(tiles, tmp_path / "grown", 4, minutes=1e-9))
    train(constant(tiles, tmp_path / "grown", 8))
    train(constant(tiles, tmp_path / "whole", 8))
    logs = [
        [json.loads(x) for x in (tmp_path / n / "log.jsonl").read_text().splitlines()]
        for n in ("grown", "whole")
    ]
    figures = [[(x["step"], x["loss"], x["lr"]) for x in log] for log in logs]
    assert figures[0] == figures[1]
    assert [f[2] for f in figures[0]] == pytest.approx(
        [1.5e-4, *[3e-4] * 6, (3e-4 + 1e-6) / 2], abs=1e-6
    )


def test_other_steps_are_refused_where_they_would_break_the_schedule(tiles, tmp_path, caplog):
    run = train(settings(tiles, tmp_path / "cosine", minutes=1e-9))
    longer = values(tiles, run)
    longer["optim"]["steps"] = 60
    with pytest.raises(
        ConfigError, match=r"optim\.steps was 6, is 60 \(the cosine ends.*start_from=.*constant"
    ):
        train(config.check(longer))
    old, new = ({"optim": config.dump(constant(tiles, run, n))["optim"]} for n in (40, 20))
    assert changes.changes(old, new, 15) == []
    assert "give at least 21 steps" in changes.changes(old, new, 16)[0]
    assert changes.changes(new, old, 18) == []
    assert "rate rises again" in caplog.text


def test_another_name_of_the_same_path_is_no_change(tmp_path, monkeypatch):
    (tmp_path / "tiles").mkdir()
    monkeypatch.chdir(tmp_path)
    old, new = ({"data": {"root": root, "run": 1}} for root in ("tiles", str(tmp_path / "tiles")))
    assert changes.changes(old, new, 1) == []
    assert changes.changes(old, {"data": {"root": "others", "run": 1}}, 1)
