"""The notebooks are those of their scripts, executed and small, and run with fewer steps."""

import json
import re

import pytest
from paths import ROOT

from scripts.notebook import cells_of, executed

SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
PICTURES = {
    "load_and_embed": 3,
    "classify_tiles": 3,
    "segment": 3,
    "count_cells": 2,
    "slide_to_heatmap": 5,
    "pretrain": 2,
}
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("default"),  # those of Jupyter's own packages
]


def texts(cell):
    return "".join(
        "".join(o["text"]) for o in cell.get("outputs", []) if o["output_type"] == "stream"
    )


def pictures(cell):
    return sum("image/jpeg" in o.get("data", {}) for o in cell.get("outputs", []))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script with few steps; gives its code cells and all of its text."""
    monkeypatch.setenv("PATHENCODER_NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for a busy core spin
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(name):
        script = (ROOT / f"notebooks/{name}.py").read_text(encoding="utf-8")
        made = executed(script, ROOT / "notebooks")
        code = [cell for cell in made.cells if cell.cell_type == "code"]
        assert sum(map(pictures, code)) == PICTURES[name]
        return code, "".join(map(texts, code))

    before = set((ROOT / "notebooks").iterdir())
    yield run
    assert set((ROOT / "notebooks").iterdir()) == before


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_stored_notebook_is_that_of_its_script_executed_and_small(script):
    file = script.with_suffix(".ipynb")
    stored = json.loads(file.read_text(encoding="utf-8"))["cells"]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in stored]
    assert found == list(cells_of(script.read_text(encoding="utf-8")))
    code = [cell for cell in stored if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum(map(pictures, code)) == PICTURES[script.stem]
    assert file.stat().st_size < 700_000
    assert not re.search(r"/(tmp|home|root|work)/", "".join(map(texts, code)))


@pytest.mark.slow
def test_an_encoder_is_loaded_and_images_are_embedded(run):
    _, text = run("load_and_embed")
    assert "(3, 768) float32" in text
    assert "tile4.png could not be read" in text
    assert "OfflineError - phikon-v2" in text
    assert "the same: True" in text


@pytest.mark.slow
def test_glands_and_nuclei_are_segmented(run):
    _, text = run("segment")
    for words in ("object_dice", "aji", "the same after a reload: true"):
        assert words in text.lower()


@pytest.mark.slow
def test_the_score_of_the_slide_follows_the_stain(run):
    code, _ = run("slide_to_heatmap")
    (line,) = [texts(cell) for cell in code if "correlation" in texts(cell)]
    assert float(line.split()[-1]) > 0.8


@pytest.mark.slow
def test_tiles_are_classified_and_an_encoder_is_adapted(run):
    _, text = run("classify_tiles")
    assert "No groups" in text or "no groups" in text
    shares = [float(x) for x in re.findall(r"tiles: ([\d.]+)% right", text)]
    assert shares[0] > 70
    assert "frozen, linear head" in text


@pytest.mark.slow
def test_cells_are_detected_and_counted(run):
    _, text = run("count_cells")
    assert re.search(r"test4\.png: \d+ cells \(\d+ known\), positive \d+% \(\d+% known\)", text)
    assert "points match within 3 um" in text


@pytest.mark.slow
def test_an_encoder_is_pretrained(run):
    _, text = run("pretrain")
    assert re.search(r"after 2 steps +balanced accuracy 0\.\d\d", text)
