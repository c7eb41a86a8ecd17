"""The probe: the figures of the referee script where it is there, and general properties."""

import csv
import dataclasses
import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from paths import SHARED

from pathencoder.errors import ConfigError, StoreError
from pathencoder.metrics import Interval
from training.evaluation import outcomes, probe

pytestmark = pytest.mark.full
REFEREE = SHARED / "tools/probe.py"


def labelled(folder, n=160, classes=2, test=True):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    x = (rng.normal(size=(n, 12)) + 0.8 * np.eye(12)[y]).astype(np.float32)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group", "split"])
        for i in range(n):
            split = ("test" if i % 20 >= 14 else "train") if test else "folds"
            writer.writerow([f"{i}.png", f"class{y[i]}", f"g{i % 20}", split])
            (folder / f"{i}.png").touch()
    return x, probe.read_labels(folder / "labels.csv")


@pytest.mark.skipif(not REFEREE.exists(), reason="the referee script is not there")
@pytest.mark.parametrize(("classes", "test"), [(2, True), (3, False)])
def test_figures_equal_the_referees(tmp_path, classes, test):
    x, labels = labelled(tmp_path, classes=classes, test=test)
    np.savez(tmp_path / "x.npz", names=labels.files, x=x)
    subprocess.run(
        [
            sys.executable,
            REFEREE,
            tmp_path / "x.npz",
            tmp_path / "labels.csv",
            "--json",
            tmp_path / "out.json",
            "--seeds",
            "2",
        ],
        check=True,
        capture_output=True,
    )
    theirs = json.loads((tmp_path / "out.json").read_text())
    part = "test" if test else None
    ours = probe.summarise([probe.probe(x, labels, test=part, seeds=2)], "x")
    for name in ("linear", "auroc", "knn20", "shot5", "shot16"):
        assert getattr(ours, name) == pytest.approx(theirs[name][0], abs=1e-9), name


def test_choosing_never_reads_a_test_part(tmp_path):
    labelled(tmp_path)
    assert set(probe.read_labels(tmp_path / "labels.csv", choose=True).split) == {"train"}


@pytest.mark.parametrize(
    ("splits", "part"),
    [
        (("train", "val", "test"), "test"),
        (("train", "val"), "val"),
        (("train", "benchmark"), "benchmark"),
        (("train",), None),
        (("folds",), None),
        (("test",), None),
    ],
)
def test_the_held_out_part_is_evaluated(tmp_path, splits, part):
    _, labels = labelled(tmp_path)
    split = np.array([splits[i % len(splits)] for i in range(len(labels.y))])
    assert probe.part_of(dataclasses.replace(labels, split=split)) == part


def test_a_group_in_both_parts_is_refused(tmp_path):
    x, labels = labelled(tmp_path)
    labels.groups[:] = "one"
    with pytest.raises(ConfigError, match="are in train and in test"):
        probe.probe(x, labels, test="test", seeds=1)
    with pytest.raises(ConfigError, match="NaN"):
        probe.probe(np.full_like(x, np.nan), labels, test="test", seeds=1)


@pytest.mark.parametrize(
    ("groups", "classes", "test", "words"),
    [
        (lambda i: i // 80, lambda i: i % 2, None, "of three for a set without a split"),
        (lambda i: max(i, 80), lambda i: i % 2, "test", "are all of one group"),
        # one class is of one patient alone
        (lambda i: min(i // 40, 2), lambda i: i >= 80, None, "are all of one class"),
        (lambda i: i, lambda i: i // 3, None, "no class has 5 images to fit on"),
    ],
)
def test_a_set_that_is_too_small_to_fit_on_is_refused(tmp_path, groups, classes, test, words):
    x, labels = labelled(tmp_path)
    n = range(len(x))
    labels = dataclasses.replace(
        labels,
        y=np.array([int(classes(i)) for i in n]),
        groups=np.array([f"g{groups(i)}" for i in n]),
        split=np.array(["train" if i <= 80 else "test" for i in n]),
        names=[f"class{i}" for i in range(1 + max(int(classes(i)) for i in n))],
    )
    with pytest.raises(ConfigError, match=words):
        probe.probe(x, labels, test=test, seeds=1)


def test_paired_difference_of_an_encoder_with_itself_is_zero_and_noise_loses(tmp_path):
    x, labels = labelled(tmp_path)
    ours = probe.probe(x, labels, test="test", seeds=1)
    noise = probe.probe(
        np.random.default_rng(1).normal(size=x.shape).astype(np.float32),
        labels,
        test="test",
        seeds=1,
    )
    assert probe.paired_auroc([ours], [ours]) == Interval(0.0, 0.0, 0.0)
    found = probe.paired_auroc([ours], [noise])
    assert found.low < found.value < found.high
    assert found.value > 0.1


def test_outcomes_are_read_as_they_were_written(tmp_path):
    x, labels = labelled(tmp_path)
    before = probe.probe(x, labels, test="test", seeds=2)
    outcomes.save_outcomes(tmp_path / "o.npz", before)
    assert probe.summarise([outcomes.load_outcomes(tmp_path / "o.npz")], "t") == probe.summarise(
        [before], "t"
    )


def test_outcomes_are_written_whole(tmp_path, monkeypatch):
    x, labels = labelled(tmp_path)
    found, file = probe.probe(x, labels, test="test", seeds=1), tmp_path / "o.npz"
    outcomes.save_outcomes(file, found)
    before = file.read_bytes()

    def break_half_way(stream, **arrays):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", break_half_way)
    with pytest.raises(StoreError, match="disk is full"):
        outcomes.save_outcomes(file, found)
    assert file.read_bytes() == before
    assert list(tmp_path.glob("*o.npz*")) == [file]


def test_training_runs_are_averaged_and_their_deviation_is_reported(tmp_path):
    x, labels = labelled(tmp_path)
    noisy = (x + np.random.default_rng(2).normal(size=x.shape)).astype(np.float32)
    a, b = (probe.probe(rows, labels, test="test", seeds=2) for rows in (x, noisy))
    one, other, both = (probe.summarise(runs, "t") for runs in ([a], [b], [a, b]))
    assert both.auroc == pytest.approx((one.auroc + other.auroc) / 2)
    assert both.auroc_sd == pytest.approx(abs(one.auroc - other.auroc) / 2**0.5)
    assert both.runs == 2
    assert (
        min(one.auroc_interval[0], other.auroc_interval[0])
        < both.auroc
        < max(one.auroc_interval[1], other.auroc_interval[1])
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_is_scikit_learns_and_nan_without_a_class(classes):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, 90)
    scores = rng.integers(0, 6, (90, classes)) + 0.5  # many ties
    probability = scores / scores.sum(1, keepdims=True)
    theirs = (
        roc_auc_score(y, probability[:, 1])
        if classes == 2
        else roc_auc_score(y, probability, multi_class="ovr", average="macro")
    )
    assert probe.auroc(y, probability) == pytest.approx(theirs, abs=1e-12)
    assert np.isnan(probe.auroc(np.minimum(y, classes - 2), probability))


def test_an_interval_without_a_draw_of_all_classes_is_nan(tmp_path):
    x, labels = labelled(tmp_path)
    (outcome,) = probe.probe(x, labels, test="test", seeds=1)
    one_class = dataclasses.replace(outcome, groups=np.array([f"g{y}" for y in outcome.y]))
    assert all(np.isfinite(probe.summarise([[one_class]], "t").linear_interval))
    alone = dataclasses.replace(outcome, y=np.zeros_like(outcome.y))
    assert np.isnan(probe.summarise([[alone]], "t").auroc_interval).all()
