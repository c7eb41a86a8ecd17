"""Write the page."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from pathencoder.files import make_folder, whole_file

_SCRIPTS = ("tiles.js", "draw.js", "choose.js", "words.js", "input.js")  # in this order


def write_page(data: dict[str, Any], out: Path) -> int:
    """Write one HTML file that holds everything and loads nothing.

    Args:
        data: As `data.page_data` returns it.
        out: The file; an existing one is replaced when the new one is complete.

    Returns:
        Its size in bytes.

    Raises:
        StoreError: It cannot be written.
    """
    page = _page(data).encode()
    make_folder(out.absolute().parent)
    with whole_file(out) as temporary:
        temporary.write_bytes(page)
    return len(page)


def _page(data: dict[str, Any]) -> str:
    """The template with its style, its script and the data; in JSON, < is escaped."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    head, rest = _read("page.html").split("/* style */")
    middle, rest = rest.split("{{data}}")
    before, after = rest.split("/* script */")
    script = "\n".join(map(_read, _SCRIPTS))
    return "".join((head, _read("page.css"), middle, text, before, script, after))


def _read(name: str) -> str:
    """A file of the template."""
    return (resources.files("pathencoder.explore") / "page" / name).read_text(encoding="utf-8")
