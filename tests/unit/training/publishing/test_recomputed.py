"""Figures of the bundled cards are what their own command gives.

The command on the card runs for one encoder on the smallest set; with PATHENCODER_CARDS=all (`make
test-cards`) on all sets, by all protocols, which takes ten minutes an encoder on two cores.
Embeddings are kept in .cache, so a second run takes seconds. The tolerance is for other versions of
the libraries: a figure is a mean over few images.
"""

import json
import os

import pytest
from click.testing import CliRunner
from paths import ROOT

from training import evaluate
from training.evaluation.report_file import read_report
from training.publishing import card

pytestmark = pytest.mark.full

DATA = ROOT.parent / "shared/data"
QUICK = "bisque_breast"  # 58 images
ROWS = {"pathencoder-tiny": "default"}
PROBE = ("auroc", "linear", "knn20", "shot5", "shot16")
ALL = os.environ.get("PATHENCODER_CARDS") == "all"
VERBS = ("probe", "calibration", *(("dense", "robustness") if ALL else ()))
there = pytest.mark.skipif(
    not (DATA / "tiles" / QUICK / "labels.csv").is_file(), reason=f"{QUICK} is not on this machine"
)


def figures_of(name):
    return json.loads((ROOT / "pathencoder/weights" / name / "metrics.json").read_text())


def kept():
    folder = ROOT / ".cache/recomputed"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(*words):
    done = CliRunner().invoke(evaluate.main, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@there
@pytest.mark.parametrize("name", ROWS)
def test_figures_of_a_card_are_computed_again(name):
    figures, row = figures_of(name), ROWS[name]
    report = card.read_figures(figures)
    words = report.command.split()
    assert words[:4] == ["python", "-m", "training.evaluate", "all"]
    assert figures["row"] == row
    assert row in words
    out = kept() / name
    sets = [s.name for s in report.sets if ALL or s.name == QUICK]
    options = ["--verbs", ",".join(VERBS), "--data", DATA, "--out", out]
    options += [] if ALL else ["--sets", QUICK, "--processes", 1]
    run("all", row, *options, "--imagenet", out / "none")
    again = read_report(out / "evaluation.json")
    stated = [r for r in report.find(encoder=row) if r.set in sets and r.verb in VERBS]
    assert {r.metric for r in stated} > {*PROBE}
    for one in stated:
        (found,) = again.find(
            encoder=row, set=one.set, verb=one.verb, metric=one.metric, condition=one.condition
        )
        what = f"{one.set} {one.verb} {one.metric} {one.condition}"
        # a temperature has no scale of its own: its effect is in the calibration error
        close = {"rel": 0.1} if one.metric == "temperature" else {"abs": 0.01}
        assert found.value == pytest.approx(one.value, **close), what
        assert (found.n, found.n_groups, found.part) == (one.n, one.n_groups, one.part), what
        if one.interval:
            bounds = (one.interval.low, one.interval.high)
            assert (found.interval.low, found.interval.high) == pytest.approx(bounds, abs=0.01)
    (mine,) = (r for r in again.encoders if r.name == row)
    assert mine.weights[0].sha256 == figures["weights_sha256"]
    hashes = {s.name: s.sha256 for s in report.sets if s.name in sets}
    assert {s.name: s.sha256 for s in again.sets} == hashes
    text = (ROOT / "pathencoder/weights" / name / "README.md").read_text()
    auroc = next(r for r in stated if (r.set, r.metric) == (QUICK, "auroc"))
    assert f"{auroc.value:.3f} [{auroc.interval.low:.2f}, {auroc.interval.high:.2f}]" in text
