"""The card of the nuclei network: what its figures give, and they are of its weights."""

import json
import shutil

import pytest
from click.testing import CliRunner
from paths import ROOT

from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import sha256_of
from training import evaluate
from training.evaluation import nuclei
from training.publishing import nuclei_card

pytestmark = pytest.mark.full

FOLDER = ROOT / "pathencoder/weights/nuclei-fcn"
DATA = ROOT.parent / "shared/data/nuclei"
QUICK = "deepliif"  # 4 images


def test_the_card_is_what_its_figures_give():
    text = (FOLDER / "README.md").read_text()
    assert text == nuclei_card.card_of_nuclei()
    figures = json.loads((FOLDER / "metrics.json").read_text())
    assert figures["sha256"] == sha256_of(FOLDER / "model.safetensors")
    assert figures["sha256"] in text


@pytest.fixture
def root(tmp_path):
    """A copy of the network's folder."""
    shutil.copytree(FOLDER, tmp_path / "pathencoder/weights/nuclei-fcn")
    return tmp_path


def test_new_figures_take_the_place_of_those_of_the_same_set(root, tmp_path):
    rows = {row: [[[0.5, 0.25, 0.125, 1.0], [0.5, 0.75, 0.125, 1.0]]] for row in nuclei_card.ROWS}
    (tmp_path / "new.json").write_text(json.dumps({QUICK: rows}))
    text = nuclei_card.rewrite([tmp_path / "new.json"], root).read_text()
    assert "| bundled | 0.5000 | 0.5000 | 0.1250 | 1.0000 |" in text
    assert "**deepliif (2 images)**" in text
    del rows["stain"]
    (tmp_path / "new.json").write_text(json.dumps({QUICK: rows}))
    with pytest.raises(ConfigError, match="--rows otsu,stain,bundled --sets deepliif"):
        nuclei_card.rewrite([tmp_path / "new.json"], root)


def test_figures_of_other_weights_are_refused(root):
    (root / "pathencoder/weights/nuclei-fcn/model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match="is of other weights"):
        nuclei_card.rewrite((), root)


@pytest.mark.skipif(
    not (DATA / "deepliif_sample/meta.csv").is_file(), reason=f"{QUICK} is not on this machine"
)
def test_figures_of_the_card_are_computed_again(tmp_path):
    """The command on the card, for the smallest set; tolerance for other versions of libraries."""
    figures = json.loads((FOLDER / "metrics.json").read_text())["bundled"]["sets"][QUICK]
    out = tmp_path / "figures.json"
    options = ["--rows", ",".join(nuclei_card.ROWS), "--sets", QUICK, "--data", DATA]
    words = ["nuclei", *map(str, options), "--cache", str(tmp_path / "cache"), "--json", str(out)]
    done = CliRunner().invoke(evaluate.main, words)
    assert done.exit_code == 0, done.output
    (again,) = nuclei_card.taken(json.loads(out.read_text())).values()
    assert again["images"] == figures["images"]
    for row, stated in figures["rows"].items():
        assert again["rows"][row] == pytest.approx(stated, abs=0.005), row
    text = (FOLDER / "README.md").read_text()
    shown = " | ".join(f"{value:.4f}" for value in figures["rows"]["bundled"].values())
    assert f"| bundled | {shown} |" in text


def test_remarks_with_commas_do_not_stop_a_set(tmp_path):
    """As in the table of CoNSeP."""
    (tmp_path / "consep20x_points/test").mkdir(parents=True)
    (tmp_path / "consep20x_points/meta.csv").write_text("file,mpp,note\ntest/a.png,0.55,of, two\n")
    (chosen,) = (s for s in nuclei.SETS if s.name == "consep20x_points")
    assert list(nuclei.pictures(chosen, tmp_path)) == []
