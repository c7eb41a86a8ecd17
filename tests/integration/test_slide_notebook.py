"""The notebook from a slide to a heat map is that of its script, and runs."""

import json

import pytest
from paths import ROOT

from scripts.notebook import cells_of, executed

pytestmark = pytest.mark.full
SCRIPT = ROOT / "notebooks/slide_to_heatmap.py"


def texts(cell):
    return "".join(
        "".join(o["text"]) for o in cell.get("outputs", []) if o["output_type"] == "stream"
    )


def pictures(cell):
    return sum("image/jpeg" in o.get("data", {}) for o in cell.get("outputs", []))


def test_the_stored_notebook_is_that_of_its_script_executed_and_small():
    file = SCRIPT.with_suffix(".ipynb")
    stored = json.loads(file.read_text(encoding="utf-8"))["cells"]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in stored]
    assert found == list(cells_of(SCRIPT.read_text(encoding="utf-8")))
    code = [cell for cell in stored if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum(map(pictures, code)) == 5
    assert file.stat().st_size < 700_000


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's own packages
def test_it_runs_and_the_score_follows_the_stain(tmp_path):
    made = executed(SCRIPT.read_text(encoding="utf-8"), tmp_path)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert sum(map(pictures, code)) == 5
    (line,) = [texts(cell) for cell in code if "correlation" in texts(cell)]
    assert float(line.split()[-1]) > 0.8
    assert list(tmp_path.iterdir()) == []
