"""Write a notebook from its script, executed.

python scripts/notebook.py notebooks/slide_to_heatmap.py

Lines that begin with `# %%` divide the script into cells; the lines of a `# %% [markdown]` cell are
comments. The notebook lies beside the script, with its pictures as JPEG. It needs nbclient and
ipykernel, of the extra full-tests.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

_WIDEST = 1600  # pixels of a picture


def cells_of(script: str) -> Iterator[tuple[str, str]]:
    """The cells of a script: "markdown" or "code", and the text."""
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in mark:
            yield "markdown", re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)
        else:
            yield "code", text.strip()


def executed(script: str, folder: Path) -> Any:
    """The notebook of a script, executed in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell fails.
    """
    import nbformat.v4 as v4
    from nbclient import NotebookClient

    make = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    cells = [make[kind](text) for kind, text in cells_of(script)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1200, resources=where).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [_tidy(o) for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def _tidy(output: Any) -> Any:
    """An output whose picture is one JPEG."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data.pop("image/png"))))
        picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.LANCZOS)
        packed = io.BytesIO()
        picture.convert("RGB").save(packed, "JPEG", quality=80, optimize=True)
        data["image/jpeg"] = base64.b64encode(packed.getvalue()).decode()
    return output


if __name__ == "__main__":
    import nbformat

    source = Path(sys.argv[1])
    notebook = executed(source.read_text(encoding="utf-8"), source.parent)
    nbformat.write(notebook, source.with_suffix(".ipynb"))
