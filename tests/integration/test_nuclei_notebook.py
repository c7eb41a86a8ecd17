"""The notebook runs as it stands, and its stored output is small."""

import ast
import json

import pytest
from paths import ROOT

pytestmark = pytest.mark.full
NOTEBOOK = ROOT / "notebooks/nuclei.ipynb"


def test_every_cell_runs_with_the_stored_output(capsys):
    cells = [
        c
        for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code"
    ]
    space = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(ast.parse("".join(cell["source"])), "cell", "exec"), space)
        stored = "".join(
            line for o in cell["outputs"] if o["output_type"] == "stream" for line in o["text"]
        )
        text = capsys.readouterr().out
        assert text.count("\n") == stored.count("\n")
    assert 270 < len(space["nuclei"]) < 320
    assert 0.5 < space["nuclei"].positive_fraction < 0.85


def test_it_is_executed_and_small():
    assert NOTEBOOK.stat().st_size < 420_000
    cells = [
        c
        for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code"
    ]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    assert sum("image/jpeg" in o.get("data", {}) for c in cells for o in c["outputs"]) == 4
