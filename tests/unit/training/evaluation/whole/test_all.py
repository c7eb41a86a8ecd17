"""`python -m training.evaluate all` on made-up sets, without ImageNet weights and other data."""

import numpy as np
import pytest
import small_encoders
from click.testing import CliRunner
from small_tile_sets import write_set

from pathencoder.encoder import Encoder
from training import evaluate
from training.evaluation.report_file import read_report
from training.evaluation.whole import shifts

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The encoder `enc`, and a folder of data with a good, a broken and a too small set."""
    folder = tmp_path_factory.mktemp("work")
    encoder = small_encoders.encoder("cnn")
    encoder.save_pretrained(folder / "enc")
    write_set(folder / "data/mine", n=27)
    (write_set(folder / "data/broken") / "3.png").unlink()
    write_set(folder / "data/small", group=lambda i: f"p{max(i, 11)}")  # train is of one group
    return folder


def run(work, monkeypatch, *more):
    monkeypatch.setattr(shifts, "MOST", 3)
    arguments = ["all", str(work / "enc"), "--data", str(work / "data"), "--processes", "1"]
    arguments += ["--out", str(work / "out"), "--imagenet", str(work / "none.safetensors")]
    return CliRunner().invoke(evaluate.main, [*arguments, "--seeds", "2", *more])


def test_every_figure_is_in_one_file_and_broken_sets_stop_nothing(work, monkeypatch):
    done = run(work, monkeypatch)
    assert done.exit_code == 3, done.output
    report = read_report(work / "out/evaluation.json")
    assert [(e.role, e.name) for e in report.encoders] == [
        ("evaluated", "enc"),
        ("random", "random"),
    ]
    mine = report.find(encoder="enc", set="mine")
    verbs = {verb: {r.metric for r in mine if r.verb == verb} for verb in {r.verb for r in mine}}
    assert verbs["probe"] >= {"auroc", "linear", "knn20", "shot16", "retrieval_map"}
    assert verbs["robustness"] >= {"auroc", "centred_cosine", "robustness_index"}
    assert verbs["calibration"] >= {"ece", "brier", "temperature"}
    (linear,) = [r for r in mine if (r.verb, r.metric) == ("probe", "linear")]
    assert (linear.value, linear.n, linear.n_groups, linear.seeds) == (1.0, 9, 3, 2)
    assert linear.interval.resampled == "group"
    assert report.rows_of(report.encoders[0].weights[0].sha256) == [report.encoders[0]]
    reasons = {a.set or a.encoder: a.reason for a in report.absent}
    assert "1 of 24 files are missing" in reasons["broken"]
    assert "all of one group" in reasons["small"]
    assert "amibr is not there: its images are of https://github.com/" in reasons["amibr"]
    assert "google-coral/test_data" in reasons["all"]
    verbs_of = {a.set: a.verb for a in report.absent}
    assert (verbs_of["monuseg"], verbs_of["amibr"], verbs_of["crchisto"]) == (
        "dense",
        "probe",
        "probe",
    )
    assert str(work) not in (work / "out/evaluation.json").read_text()
    assert "left out, to be corrected: broken" in done.output
    assert {p.name for p in (work / "out").glob("*.png")} == {
        "probe.png",
        "robustness.png",
        "reliability.png",
    }


def test_the_second_run_embeds_nothing_and_says_the_same(work, monkeypatch):
    before = run(work, monkeypatch, "--sets", str(work / "data/mine"))
    assert before.exit_code == 0, before.output
    first = read_report(work / "out/evaluation.json")
    monkeypatch.setattr(Encoder, "encode", None)
    after = run(work, monkeypatch, "--sets", str(work / "data/mine"))
    assert after.exit_code == 0, after.output
    assert read_report(work / "out/evaluation.json").results == first.results


def test_damaged_embeddings_are_computed_again(work, monkeypatch):
    run(work, monkeypatch, "--sets", str(work / "data/mine"), "--verbs", "probe")
    file = next((work / "out/cache").glob("*/mine@????????????.npy"))
    good = np.load(file)
    file.write_bytes(file.read_bytes()[:200])
    done = run(work, monkeypatch, "--sets", str(work / "data/mine"), "--verbs", "probe")
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.load(file), good)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sets", "nothing"), "'nothing' is neither a folder"),
        (("--verbs", "guess"), "some of probe, dense"),
    ],
)
def test_wrong_options_are_explained(work, monkeypatch, more, message):
    done = run(work, monkeypatch, *more)
    assert done.exit_code == 1
    assert message in done.output


def test_without_data_the_command_says_what_to_download(work, tmp_path):
    arguments = ["all", str(work / "enc"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(evaluate.main, arguments)
    assert done.exit_code == 1
    assert "no set to evaluate on" in done.output
    assert "monuseg is not there: its images are of https://github.com/ykrmm/monuseg" in done.output


def test_baselines_alone_are_refused(tmp_path):
    done = CliRunner().invoke(evaluate.main, ["all", "random", "imagenet"])
    assert done.exit_code == 1
    assert "name an encoder beside the baselines" in done.output
