"""The table of dense heads: every fit is kept, folds keep patients together, scores are pooled."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import small_encoders
import torch
from click.testing import CliRunner
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.errors import ConfigError
from pathencoder.heads.dense import train
from pathencoder.runtime import gains_from_bf16
from training.evaluation import head_sets, heads_table
from training.evaluation.encoders import Subject
from training.evaluation.head_sets import SETS, CellLabels, Pair

pytestmark = pytest.mark.full


@pytest.fixture
def data(tmp_path):
    """Six images of three patients, with label maps and points, for three sets."""
    for name in ("monuseg", "glas", "crchisto"):
        folder = tmp_path / "nuclei" / name / "train"
        folder.mkdir(parents=True)
        with (folder.parent / "meta.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "split", "mpp", "slide_id"])
            for i in range(6):
                image, labels, _ = tissue((96, 96), nuclei=8, radius=9, seed=i)
                Image.fromarray(image).save(folder / f"{i}.png")
                Image.fromarray(labels.astype(np.uint16)).save(folder / f"{i}.labels.png")
                centres = [np.argwhere(labels == n).mean(0) for n in range(1, labels.max() + 1)]
                lines = "".join(f"{x},{y},c\n" for y, x in centres)
                (folder / f"{i}.points.csv").write_text("x,y,class\n" + lines)
                writer.writerow([f"train/{i}.png", "train", "0.25", f"p{i // 2}"])
    return tmp_path


@pytest.fixture
def run(data, monkeypatch):
    """The command with two steps a fit; returns its output and the number of fits."""
    fits = []
    real = heads_table.dense.fit
    monkeypatch.setattr(
        heads_table.dense, "fit", lambda *a, **k: fits.append(a[3]) or real(*a, **k)
    )
    small = dataclasses.replace(heads_table._TRAINING, batch=2, side=64)
    monkeypatch.setattr(heads_table, "_TRAINING", small)
    subject = Subject("small", small_encoders.shared("cnn"), "f" * 64)
    monkeypatch.setattr(heads_table, "networks", lambda names: {"small": [subject]})

    def call(*options):
        fits.clear()
        given = ["small", "--data", str(data), "--results", str(data / "r.jsonl"), "--steps", "1"]
        if "--precision" not in options:
            given += ["--precision", "fp32"]
        done = CliRunner().invoke(heads_table.heads, [*given, *options])
        return done.output, len(fits)

    return call


def test_fits_are_kept_and_not_repeated(run):
    settings = ("--cv", "--sets", "monuseg,crchisto,glas", "--seeds", "1")
    output, fits = run(*settings)
    assert fits == 9  # three sets, three patients
    assert "| monuseg | folds | small | adapted, 1 steps | dice" in output
    assert "object_f1" in output
    again, fits = run(*settings)
    assert (fits, again) == (0, output)
    _, fits = run(*settings, "--frozen")
    assert fits == 9


def test_a_table_goes_on_in_the_precision_of_another_machine(run, data):
    settings = ("--cv", "--sets", "monuseg", "--folds", "1")
    run(*settings, "--seeds", "1")
    results = data / "r.jsonl"
    results.write_text(results.read_text().replace('"fp32"', '"bf16"'))
    output, fits = run(*settings, "--seeds", "2", "--precision", "auto")
    own = "bf16" if gains_from_bf16(torch.device("cpu")) else "fp32"
    assert fits == 1
    kept = [line["key"]["training"]["precision"] for line in heads_table.read(results)]
    assert kept == ["bf16", own]
    assert f"| 2 | {', '.join(sorted({'bf16', own}))} |" in output
    assert run(*settings, "--seeds", "1")[1] == 1  # fp32, asked for by name


def test_an_interrupted_fit_goes_on_where_it_stopped(run, data, monkeypatch):
    settings = ("--cv", "--sets", "monuseg", "--seeds", "1", "--folds", "1", "--steps", "4")
    for module in (heads_table, train):
        monkeypatch.setattr(module, "EVERY", 1)
    steps = []
    real = heads_table._Unfinished.progress

    def progress(unfinished, step, loss):
        real(unfinished, step, loss)
        steps.append(step)
        if steps == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(heads_table._Unfinished, "progress", progress)
    run(*settings)
    kept = data / "r.fit.json"
    content = json.loads(kept.read_text())
    assert content["seconds"] > 0
    kept.write_text(json.dumps(content | {"seconds": 5000.0}))
    run(*settings)
    assert steps == [0, 1, 2, 3]
    (line,) = heads_table.read(data / "r.jsonl")
    assert 5000 <= line["cpu_seconds"] < 5100
    assert not list(data.glob("r.fit*"))

    del steps[:]
    kept.write_text(json.dumps(content | {"key": {}, "seconds": 5000.0}))  # of another fit
    monkeypatch.setattr(heads_table._Unfinished, "progress", real)
    run(*settings, "--frozen")
    assert heads_table.read(data / "r.jsonl")[-1]["cpu_seconds"] < 5000


def test_patients_stay_in_one_fold(data):
    s = SETS["monuseg"]
    rows = head_sets.rows_of(s, data, choose=True)
    for fit_on, score_on in head_sets.folds_of(s, rows, choose=True):
        assert not {rows[i].group for i in fit_on} & {rows[i].group for i in score_on}


def test_patients_of_the_test_part_can_be_left_out(run, data):
    table = data / "nuclei" / "glas" / "meta.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:5], *(x.replace(",train,", ",testA,") for x in lines[5:])]))
    s = SETS["glas"]
    rows = head_sets.rows_of(s, data, choose=False)
    ((fit_on, score_on),) = head_sets.folds_of(s, rows, choose=False, apart=True)
    assert {rows[i].group for i in fit_on} == {"p0", "p1"}
    assert {rows[i].group for i in score_on} == {"p2"}
    table.write_text("\n".join([*lines[:4], lines[4].replace(",train,", ",testA,"), *lines[5:]]))
    rows = head_sets.rows_of(s, data, choose=False)
    ((fit_on, _),) = head_sets.folds_of(s, rows, choose=False, apart=True)
    assert {rows[i].group for i in fit_on} == {"p0", "p2"}  # one of p1's two images is in testA
    settings = ("--sets", "glas", "--seeds", "1")
    assert run(*settings)[1] == 1
    output, fits = run(*settings, "--apart")
    assert fits == 1
    assert "| glas | testA, patients apart |" in output
    assert "leaves unread" in run(*settings, "--apart", "--cv")[0]


def test_a_set_that_does_not_exist(run):
    output, fits = run("--sets", "nothing")
    assert fits == 0
    assert "the sets are glas" in output


def test_points_are_pooled_over_images():
    true, found = np.array([[5.0, 5], [50, 50]]), np.array([[5.0, 8, 1], [90, 90, 1]])
    pairs = [Pair(true, found, 0.5), Pair(true, np.zeros((0, 3)), 0.5)]
    assert head_sets.scores(SETS["crchisto"], pairs)["f1"] == pytest.approx(2 / 6)


def test_one_fold_is_enough_for_a_choice(run):
    _, fits = run("--cv", "--sets", "crchisto", "--seeds", "1", "--folds", "1")
    assert fits == 1
    _, fits = run("--cv", "--sets", "crchisto", "--seeds", "1")
    assert fits == 2


def test_points_of_an_earlier_rule_are_fitted_again_and_a_row_of_their_own(run, data):
    settings = ("--cv", "--sets", "crchisto", "--seeds", "1", "--folds", "1")
    run(*settings)
    results = data / "r.jsonl"
    results.write_text(results.read_text().replace(', "smoothing_um": [0.35, 0.8]', ""))
    output, fits = run(*settings)
    assert fits == 1
    assert output.count("| crchisto |") == 2
    assert output.count("maps smoothed by 0.35 um") == 1
    before, _ = results.read_text().splitlines()
    results.write_text(before.replace(', "peak_step": 0.01', "") + "\n" + before + "\n")
    output, fits = run(*settings)
    assert fits == 1
    assert output.count("| crchisto |") == 3
    assert output.count("lowest peak in steps of .05") == 1


def test_averaged_views_are_a_row_of_their_own_and_read_the_same_fit(run):
    settings = ("--cv", "--sets", "crchisto", "--seeds", "1", "--folds", "1")
    output, fits = run(*settings, "--views", "1", "--views", "4")
    assert fits == 1
    assert "adapted, 1 steps |" in output
    assert "adapted, 4 views, 1 steps |" in output
    assert run(*settings, "--views", "4") == (output, 0)
    output, fits = run(*settings, "--views", "8", "--views", "1")
    assert fits == 1
    assert output.count("adapted, 1 steps |") == 1


def test_another_decoder_is_a_row_of_its_own(run):
    pytest.importorskip("segmentation_models_pytorch")
    settings = ("--cv", "--sets", "crchisto", "--seeds", "1", "--folds", "1")
    run(*settings)
    output, fits = run(*settings, "--decoder", "unet")
    assert fits == 1
    assert "adapted, 1 steps |" in output
    assert "adapted, unet, 1 steps |" in output


def test_classes_of_points_are_fitted_and_scored(run, data):
    for file in data.glob("nuclei/crchisto/train/*.csv"):
        head, *points = file.read_text().splitlines()
        names = ["epithelial", "others", "unclassified"]
        lines = [f"{p.rsplit(',', 1)[0]},{names[i % 3]}" for i, p in enumerate(points)]
        file.write_text("\n".join([head, *lines]))
    output, _ = run("--cv", "--sets", "crchisto", "--seeds", "1", "--folds", "1")
    assert "class_f1_weighted" in output
    assert "found_class_f1_mean" in output


def labelled_pair(true, given, found):
    points = np.array([[20.0 * i, 5] for i in range(len(true))])
    height = np.ones(len(true))
    return Pair(points, np.c_[points, height], 0.25, CellLabels(true, given, found))


def test_the_share_of_positive_cells_is_scored_by_image():
    s = SETS["bcdata_sample"]
    half = labelled_pair(["positive", "negative"], ["positive"] * 2, ["positive"] * 2)
    right = labelled_pair(["positive"] * 2, ["positive"] * 2, ["positive"] * 2)
    scores = head_sets.scores(s, [half, right])
    assert scores["share_error"] == pytest.approx(25)
    assert scores["share_error_pooled"] == pytest.approx(25)
    assert scores["class_f1_weighted"] == pytest.approx(0.75 * 6 / 7)
    assert scores["found_class_f1_weighted"] == pytest.approx(0.75 * 6 / 7)


def test_an_image_where_no_cell_was_found_has_the_largest_error():
    missed = Pair(
        np.array([[5.0, 5]]), np.zeros((0, 3)), 0.25, CellLabels(["positive"], ["positive"], [])
    )
    other = labelled_pair(["positive", "negative"], ["positive"] * 2, ["positive", "negative"])
    assert head_sets.scores(SETS["bcdata_sample"], [missed, other])["share_error"] == 50


def test_points_that_no_expert_classified_have_no_class(data):
    row = head_sets.rows_of(SETS["crchisto"], data, choose=True)[0]
    file = row.file.with_name(f"{row.file.stem}.points.csv")
    file.write_text("x,y,class\n5,5,unclassified\n9,9,inflammatory\n")
    x = head_sets.labelled(SETS["crchisto"], row)
    assert x.classes.tolist() == [-1, 2]
    assert x.names[2] == "inflammatory"


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path, caplog):
    results = tmp_path / "r.jsonl"
    results.write_text('{"key": 1}\n{"key": 2}\n{"ke')
    assert heads_table.read(results) == [{"key": 1}, {"key": 2}]
    assert "half a line: it is dropped" in caplog.text
    assert results.read_text() == '{"key": 1}\n{"key": 2}\n'
    results.write_text('{"key": 1}\nnothing\n{"key": 2}\n')
    with pytest.raises(ConfigError, match="line 2 is not JSON"):
        heads_table.read(results)
