"""Write the page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.explore.data import page_data
from pathencoder.explore.gather import gather
from pathencoder.features.given import is_number, path_given, paths_given
from pathencoder.files import make_folder, whole_file
from pathencoder.pictures.located import Tiles
from pathencoder.walk import printable

_SUFFIXES = (".html", ".htm")
_SCRIPTS = ("tiles.js", "draw.js", "choose.js", "words.js", "input.js")  # in this order


@dataclass(frozen=True)
class ExplorePage:
    """A page that was written.

    Attributes:
        path: The file.
        size: In bytes.
        slides: The names of its slides.
        tiles: How many it shows.
        explained: The share of the features' variance that it holds.
        correlation: Of its similarities with those of whole features; None: too few tiles.
        agreement: Share of the most similar tiles that are the same; None: too few tiles.
        notes: What is missing or was assumed, as sentences.
        failed: The files that could not be used, and why.
    """

    path: Path
    size: int
    slides: list[str]
    tiles: int
    explained: float
    correlation: float | None
    agreement: float | None
    notes: list[str]
    failed: list[tuple[Path, str]]


def write_explore_page(
    features: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    slides: str | os.PathLike[str] | None = None,
    title: str | None = None,
    max_mb: float = 5.0,
    on_slide: Callable[[Tiles], None] = lambda _: None,
) -> ExplorePage:
    """Write one HTML page to explore the features of one or several slides in a browser.

    Args:
        features: Feature files of slides, of one encoder and in any layout, or folders of them.
        out: The page, ending in .html or .htm: no feature file is replaced by mistake.
        slides: Folder of the slides. None: where they were when they were encoded.
        title: None: the name of the slide.
        max_mb: Size of the page at most, in MB. Pictures are made smaller to fit; features are not.
        on_slide: Called with the tiles of a slide before its picture is made.

    Returns:
        What was written, with the files that could not be used.

    Raises:
        ConfigError: A setting is not valid, two files cannot be compared, or none can be used.
        StoreError: The page cannot be written.
    """
    if not (is_number(max_mb) and max_mb > 0):
        raise ConfigError(f"max_mb={max_mb!r}: a number above zero")
    page = path_given(out, "out")
    if page.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"out={printable(page)!r} does not end in .html: give the name of a page")
    found = gather(
        paths_given(features, "features"),
        None if slides is None else path_given(slides, "slides"),
        on_slide=on_slide,
    )
    names = [laid.tiles.slide for laid in found.slides]
    data = page_data(
        found.slides,
        title=title or (names[0] if len(names) == 1 else f"{len(names)} slides"),
        max_bytes=int(max_mb * 1e6),
    )
    size = write_page(data, page)
    notes = [
        f"{laid.tiles.slide}: {note}"
        for laid in found.slides
        for note in (*laid.ground.notes, *laid.tiles.notes)
    ]
    if size > max_mb * 1e6:
        notes.append(f"the page has {size / 1e6:.1f} MB: its features alone need nearly that")
    return ExplorePage(
        path=page,
        size=size,
        slides=names,
        tiles=sum(len(laid.tiles.rows) for laid in found.slides),
        explained=data["explained"],
        correlation=data["correlation"],
        agreement=data["agreement"],
        notes=notes,
        failed=found.failed,
    )


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
