"""Plans: every cell is made once, resumed, averaged; and the stain shifts of the evaluation."""

import csv
import json
import shutil
import time

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from small_dense_sets import write_dense_sets

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from training import experiments
from training.evaluation import dense, dense_readout, experiments_table, robustness
from training.evaluation.encoders import open_subject
from training.evaluation.sets import few_of, open_sets
from training.publishing.average import steps_of

pytestmark = pytest.mark.full

SOUP = {"of": "base", "soup": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """tiles/crc_polyp5: two classes of noise, six groups, all in the train part."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    folder = root / "tiles" / "crc_polyp5"
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group", "split"])
        for i in range(24):
            tile = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) // (1 + i % 2)
            Image.fromarray(tile).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", "ab"[i % 2], f"g{i % 6}", "train"])
    return root


def plan_of(data, folder, **changes):
    recipe = {
        "method": {"name": "simclr", "crop": {"px": 32}, "hidden": 8, "out": 4},
        "data": {"root": str(data / "tiles"), "canvas": 40, "batch": 4},
        "backbone": {"architecture": "test_resnet", "input_size": 32},
        "optim": {"steps": 4, "warmup": 1},
        "run": {"out": "unused"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plan = {
        "out": str(folder / "out"),
        "recipe": str(folder / "recipe.yaml"),
        "core_minutes": 1e-6,
        "seeds": [0, 1],
        "sets": ["crc_polyp5"],
        "data": str(data),
        "cache": str(folder / "cache"),
        "baselines": [],
        "arms": {
            "base": {},
            "half": {"of": "base", "start_share": 0.5},
            "soup": {"of": "base", "soup": True},
        },
        **changes,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return experiments.read_plan(folder / "plan.yaml")


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    plan = plan_of(data, folder)
    (folder / "out").mkdir()
    (folder / "out" / "rates.json").write_text('{"base": 0.00002}')  # so that a cell is three steps
    experiments.run(plan)
    return plan


def lines(plan):
    return [json.loads(line) for line in (plan.out / "results.jsonl").read_text().splitlines()]


def test_every_cell_is_made_and_evaluated_once(done):
    before = lines(done)
    assert [line["cell"] for line in before if line["set"] == "crc_polyp5"] == [
        "base-s0",
        "half-s0",
        "base-s1",
        "half-s1",
        "soup",
    ]
    experiments.run(done)
    assert lines(done) == before


def test_averages_are_what_they_say(done):
    def weights(cell):
        return load_encoder(str(done.out / cell / "export")).state_dict()

    a, b, soup = weights("base-s0"), weights("base-s1"), weights("soup")
    assert any(not torch.equal(a[k], b[k]) for k in a)
    assert all(
        torch.allclose(soup[k].float(), (a[k].float() + b[k].float()) / 2, atol=2e-3) for k in a
    )


def test_an_average_with_the_start_says_so(done):
    half, start = (
        load_encoder(str(done.out / cell / "export")).spec.training
        for cell in ("half-s0", "base-s0")
    )
    assert "averaged with the starting weights (0.5 of them)" in half
    assert "averaged" not in start


def test_the_table_shows_arms_and_differences(done, capsys):
    experiments_table.print_table(done.out, done.sets)
    printed = capsys.readouterr().out
    assert "base" in printed
    assert "half - base" in printed.replace("half                   -", "half -")


def test_results_without_their_outcomes_are_shown_without_differences(done, tmp_path, capsys):
    """As where results.jsonl was copied from another machine."""
    shutil.copy(done.out / "results.jsonl", tmp_path)
    experiments_table.print_table(tmp_path, done.sets)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("soup")
    assert last.endswith("not here")


def test_rates_of_other_processes_stay(data, tmp_path, monkeypatch):
    plan = plan_of(data, tmp_path)
    plan.out.mkdir()
    rates = plan.out / "rates.json"

    def measured(recipe, settings):
        rates.write_text('{"other": 2.0}')  # another process measures its arm meanwhile
        return 1.0

    monkeypatch.setattr(experiments, "_cpu_seconds_of_a_step", measured)
    experiments._affordable_steps(plan, "base", "recipe", [])
    assert json.loads(rates.read_text()) == {"base": 1.0, "other": 2.0}


def test_an_export_of_a_stopped_run_is_not_the_last(data, tmp_path):
    plan = plan_of(data, tmp_path, seeds=[0], core_minutes=None, steps=2, arms={"base": {}})
    experiments.train(plan)
    out = plan.out / "base-s0"
    assert experiments._is_done(out, 2)
    assert not experiments._is_done(out, 3)
    described = out / "export/config.json"
    text = described.read_text()
    assert ", 2 steps of" in text
    described.write_text(text.replace(", 2 steps of", ", stopped at 1 of 2 steps of"))
    assert not experiments._is_done(out, 2)


def test_an_interrupted_plan_keeps_its_checkpoint_and_resumes(data, tmp_path):
    stops = plan_of(data, tmp_path, seeds=[0], arms={"base": {"set": ["minutes=1e-9"]}})
    stops.out.mkdir()
    (stops.out / "rates.json").write_text('{"base": 0.00003}')
    experiments.run(stops)
    assert steps_of(stops.out / "base-s0") == 1
    assert not (stops.out / "results.jsonl").exists()
    plan = plan_of(data, tmp_path, seeds=[0], arms={"base": {}})
    experiments.run(plan, deadline=time.monotonic() - 1)
    assert not (plan.out / "results.jsonl").exists()
    experiments.run(plan)
    assert steps_of(plan.out / "base-s0") == 2
    assert {line["cell"] for line in lines(plan)} == {"base-s0"}


def test_training_here_and_evaluating_there(data, tmp_path):
    """--train evaluates nothing; a later call needs no checkpoint weights and trains nothing."""
    plan = plan_of(
        data,
        tmp_path,
        seeds=[0],
        core_minutes=None,
        steps=3,
        arms={"base": {}, "longer": {"steps": 4}, "soup": SOUP},
    )
    experiments.train(plan)
    assert (steps_of(plan.out / "base-s0"), steps_of(plan.out / "longer-s0")) == (3, 4)
    assert not (plan.out / "results.jsonl").exists()
    for file in plan.out.glob("*/checkpoints/*/*"):
        if file.name != "run.json":
            file.unlink()
    before = {f: f.stat().st_mtime_ns for f in plan.out.glob("*-s0/export/*")}
    experiments.run(plan)
    assert {line["cell"] for line in lines(plan)} == {"base-s0", "longer-s0", "soup"}
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_results_of_other_settings_are_not_taken_for_those_of_the_plan(
    data, tmp_path, caplog, capsys
):
    asked = {"seeds": [0], "core_minutes": None, "steps": 2, "arms": {"base": {}}}
    plan = plan_of(data, tmp_path, **asked)
    experiments.run(plan)
    before = lines(plan)
    changed = {**asked, "arms": {"base": {"set": ["optim.lr=0.01", "data.batch=8"]}}}
    for act in (experiments.run, experiments.train):
        with pytest.raises(ConfigError, match=r"base-s0: data\.batch was 4, is 8, optim\.lr was"):
            act(plan_of(data, tmp_path, **changed))
    with pytest.raises(ConfigError, match=r"optim\.steps was 2, is 1\).*or other names"):
        experiments.run(plan_of(data, tmp_path, **{**asked, "steps": 1}))
    plan_of(data, tmp_path, **changed)
    shown = CliRunner().invoke(experiments.main, [str(tmp_path / "plan.yaml"), "--table"])
    assert shown.exit_code == 0, shown.output
    assert "base-s0 was trained with other settings: data.batch" in caplog.text
    # of an older version, without a setting that was added since; then without its folder
    file = plan.out / "base-s0/config.yaml"
    values = yaml.safe_load(file.read_text())
    del values["data"]["share"], values["optim"]["cooldown"]
    file.write_text(yaml.safe_dump(values))
    experiments.run(plan_of(data, tmp_path, **asked))
    values["data"]["gone"] = 1
    file.write_text(yaml.safe_dump(values))
    experiments.run(plan_of(data, tmp_path, **asked))
    assert "whether" in caplog.text
    file.unlink()
    experiments.run(plan_of(data, tmp_path, **changed))
    assert lines(plan) == before


def test_a_set_that_is_added_is_probed_and_the_others_are_not_again(data, tmp_path, capsys):
    for name in ("crc_polyp5", "amibr"):
        shutil.copytree(data / "tiles/crc_polyp5", tmp_path / "tiles" / name)
    asked = {"seeds": [0], "core_minutes": None, "steps": 1, "arms": {"base": {}, "more": {}}}
    plan = plan_of(tmp_path, tmp_path, **asked)
    experiments.run(plan)
    before = lines(plan)
    plan = plan_of(tmp_path, tmp_path, **asked, sets=["amibr", "crc_polyp5"])
    experiments_table.print_table(plan.out, plan.sets)
    assert "nan" not in capsys.readouterr().out
    experiments.run(plan)
    made = lines(plan)
    assert made[: len(before)] == before
    added = [(line["cell"], line["set"]) for line in made[len(before) :]]
    assert added == [("base-s0", "amibr"), ("more-s0", "amibr")]


def test_chosen_arms_alone_are_made(data, tmp_path):
    plan_of(
        data,
        tmp_path,
        seeds=[0, 1],
        core_minutes=None,
        steps=2,
        arms={"base": {}, "other": {}, "soup": SOUP},
    )
    asked = ["--train", "--arms", "soup", "--seeds", "1", "--set", "run.loaders=2"]
    done = CliRunner().invoke(experiments.main, [str(tmp_path / "plan.yaml"), *asked])
    assert done.exit_code == 0, done.output
    assert [p.parent.name for p in (tmp_path / "out").glob("*/export")] == ["base-s1"]
    assert "loaders: 2" in (tmp_path / "out" / "base-s1" / "config.yaml").read_text()
    for asked, message in (
        (["--arms", "bas"], "no arm"),
        (["--set", "optim.lr=1"], "change no result"),
        (["--seeds", "1"], "needs --train"),
        (["--train", "--seeds", "a"], "joined by commas"),
    ):
        refused = CliRunner().invoke(experiments.main, [str(tmp_path / "plan.yaml"), *asked])
        assert refused.exit_code == 1
        assert message in refused.output


def test_a_rehearsal_goes_through_every_arm_and_is_kept_apart(data, tmp_path):
    arms = {
        "he": {"steps": 9},
        "ihc": {"against": "soup", "seeds": [1]},
        "soup": SOUP | {"of": "he"},
    }
    plan = plan_of(data, tmp_path, steps=7, arms=arms, set=["optim.warmup=5"])
    done = CliRunner().invoke(experiments.main, [str(tmp_path / "plan.yaml"), "--rehearse"])
    assert done.exit_code == 0, done.output
    assert not plan.out.exists()
    out = tmp_path / "out-rehearsal"
    made = lines(plan.model_copy(update={"out": out}))
    assert {line["cell"] for line in made} == {"he-s0", "ihc-s0", "soup"}
    assert steps_of(out / "he-s0") == 2
    assert "the figures mean nothing" in done.output
    assert "ihc                    - soup: " in done.output
    assert "soup                   - he: " in done.output
    assert not list((tmp_path / "cache").glob("*/*.npz"))  # where figures of whole sets are kept


def test_dense_sets_of_a_plan_are_read_by_linear_decoders(data, tmp_path, monkeypatch, capsys):
    """Also by a plan whose probe was evaluated before; the table shows them beside it."""
    monkeypatch.setattr(dense, "POSITIONS", 40)  # of an image, so that fits are short
    write_dense_sets(tmp_path)
    (tmp_path / "tiles").symlink_to(data / "tiles")
    arms = {"base": {}, "half": {"of": "base", "start_share": 0.5}}
    asked = {"seeds": [0], "core_minutes": None, "steps": 1, "arms": arms}
    experiments.run(plan_of(tmp_path, tmp_path, **asked))
    plan = plan_of(tmp_path, tmp_path, **asked, dense=["monuseg", "crchisto"])
    before = lines(plan)
    experiments.run(plan)
    made = lines(plan)
    experiments.run(plan)
    assert lines(plan) == made
    assert made[: len(before)] == before
    added = [(line["cell"], line["set"]) for line in made[len(before) :]]
    sets = ("dense monuseg", "dense crchisto")
    assert added == [(cell, s) for cell in ("base-s0", "half-s0") for s in sets]
    kept = json.loads((plan.out / "outcomes/base-s0/dense-monuseg.json").read_text())
    assert [len(run) for run in kept] == [6]
    dice = np.mean([2 * x["hit"] / (x["predicted"] + x["true"]) for x in kept[0]])
    assert made[len(before)]["score"] == pytest.approx(dice, abs=1e-4)
    experiments_table.print_table(plan.out, plan.sets, dense=plan.dense)
    shown = capsys.readouterr().out.partition("frozen dense features")[2]
    assert "monuseg" in shown
    assert "half                   - base: " in shown
    assert "not here" not in shown
    shutil.rmtree(plan.out / "outcomes")
    experiments_table.print_table(plan.out, plan.sets, dense=plan.dense)
    assert capsys.readouterr().out.splitlines()[-1].count("not here") == 2
    (subject,) = open_subject(str(plan.out / "base-s0" / "export"))
    dense_readout.evaluate_dense(plan, subject, "monuseg", tmp_path, few=True)
    (few,) = json.loads((tmp_path / "dense-monuseg.json").read_text())
    assert len(few) == 3  # one image of each group
    with pytest.raises(ConfigError, match=r"'monusek' is not one of monuseg, .*nearest: monuseg"):
        plan_of(tmp_path, tmp_path, **asked, dense=["monusek"])


def test_a_few_images_of_a_set_are_of_every_class_and_of_several_groups(data):
    (whole,) = open_sets(["crc_polyp5"], data=data, cache=data, choose=True)
    few = few_of(whole, 5)
    assert len(few.labels.files) == 10
    assert np.bincount(few.labels.y).tolist() == [5, 5]
    assert len(set(few.labels.groups.tolist())) > 2
    rows = [whole.labels.files.index(file) for file in few.labels.files]
    assert whole.labels.y[rows].tolist() == few.labels.y.tolist()
    for number in (0, 1):  # to the end of the table
        assert np.flatnonzero(whole.labels.y == number)[-1] in rows
    assert few_of(whole, 99).labels.files == whole.labels.files


def test_plans_with_mistakes_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="core_minutes or steps"):
        plan_of(data, tmp_path, core_minutes=None)
    with pytest.raises(ConfigError, match="not an arm that trains"):
        plan_of(data, tmp_path, arms={"half": {"of": "bsae"}})
    with pytest.raises(ConfigError, match="is against 'bsae': name another arm"):
        plan_of(data, tmp_path, arms={"base": {"against": "bsae"}})
    with pytest.raises(ConfigError, match="nearest: temperature"):
        plan_of(data, tmp_path, arms={"base": {"set": ["method.temperatur=1"]}})
    with pytest.raises(ConfigError, match="core_minutes"):
        plan_of(data, tmp_path, core_minutes=-1)
    for text, message in (("", "no settings"), ("a: [", "not YAML")):
        (tmp_path / "plan.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            experiments.read_plan(tmp_path / "plan.yaml")


def test_shifts_keep_white_and_change_colours():
    rng = np.random.default_rng
    white, pink = np.full((8, 8, 3), 255, np.uint8), np.full((8, 8, 3), (200, 120, 180), np.uint8)
    for shift in (*robustness.UNSEEN.values(), robustness.hed):
        if shift is not robustness.hed:  # an amount of stain may be added to glass
            assert np.abs(shift(white, rng(0)).astype(int) - 255).max() <= 1
        assert np.abs(shift(pink, rng(0)).astype(int) - pink).max() > 1
        assert np.array_equal(shift(pink, rng(3)), shift(pink, rng(3)))


def test_centred_cosine_is_one_for_no_shift_and_blind_to_a_common_offset():
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    assert robustness.centred_cosine(rows, rows) == pytest.approx(1)
    other = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    apart = robustness.centred_cosine(rows, other)
    assert abs(apart) < 0.4
    assert robustness.centred_cosine(rows + 100, other + 100) == pytest.approx(apart, abs=1e-3)


def test_a_plan_on_other_tiles_has_results_of_its_own(data, tmp_path):
    plan = plan_of(data, tmp_path)
    moved = experiments.with_root(plan, "/data/shards")
    assert (moved.out.name, moved.set) == ("out-shards", (*plan.set, "data.root=/data/shards"))
    a, b = (tmp_path / name / "tiles" for name in "ab")
    for folder in (a, b):
        folder.mkdir(parents=True)
    run = tmp_path / "out-tiles" / "base-s0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"root": str(a)}}))
    assert experiments.with_root(plan, f"{a}/").out.name == "out-tiles"
    other = experiments.with_root(plan, str(b)).out
    assert other.name.startswith("out-tiles-")
    other.mkdir()
    (run / "config.yaml").unlink()  # its results may still be there
    assert experiments.with_root(plan, str(b)).out == other
    assert experiments.with_root(plan, str(a)).out.name == "out-tiles"
    assert experiments.with_root(plan, None) is plan
