"""Figures of the bundled cards are what their own command gives."""

import json

import pytest
from click.testing import CliRunner
from paths import ROOT

from training import evaluate

pytestmark = pytest.mark.full

DATA = ROOT.parent / "shared/data"
QUICK = "bisque_breast"  # 58 images
ROWS = {"pathencoder-tiny": "default", "pathencoder-tiny-research": "research"}


@pytest.mark.skipif(
    not (DATA / "tiles" / QUICK / "labels.csv").is_file(), reason=f"{QUICK} is not on this machine"
)
@pytest.mark.filterwarnings("ignore:.*for research only")
@pytest.mark.parametrize("name", ROWS)
def test_figures_of_a_card_are_computed_again(name, tmp_path):
    """The command on the card, for one encoder and the smallest set.

    The tolerance is for other versions of the libraries: a figure is a mean over 58 images.
    """
    figures = json.loads((ROOT / "pathencoder/weights" / name / "metrics.json").read_text())
    row = ROWS[name]
    assert figures["row"] == row
    words = figures["measured"]["about"]["command"].split()
    assert words[:4] == ["python", "-m", "training.evaluate", "probe"]
    assert row in words
    out = tmp_path / "metrics.json"
    options = ["--sets", QUICK, "--data", DATA, "--cache", tmp_path / "cache", "--json", out]
    done = CliRunner().invoke(evaluate.main, ["probe", row, *map(str, options)])
    assert done.exit_code == 0, done.output
    again = json.loads(out.read_text())["sets"][QUICK][row]
    stated = figures["measured"]["sets"][QUICK][row]
    for figure in ("auroc", "linear", "knn20", "shot5", "shot16"):
        assert again[figure] == pytest.approx(stated[figure], abs=0.01), figure
    for bound in (0, 1):
        assert again["auroc_interval"][bound] == pytest.approx(
            stated["auroc_interval"][bound], abs=0.01
        )
    assert (again["n"], again["groups"]) == (stated["n"], stated["groups"])
    card = (ROOT / "pathencoder/weights" / name / "README.md").read_text()
    assert f"{stated['auroc']:.3f}" in card
