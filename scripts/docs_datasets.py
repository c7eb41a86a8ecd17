"""Write the descriptions of the public data sets into the documentation's page.

python scripts/docs_datasets.py docs/datasets.md

What stands above the first table is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pathencoder.heads.datasets.catalogue import names, public_set
from pathencoder.heads.datasets.public_set import PublicSet

_COLUMNS = ("Name", "Set", "Labels", "Images", "Stain", "µm/px", "Parts", "Groups", "Licence")
_COMMERCIAL = "Commercial use"
_TASKS = {"classify": "a class", "segment": "outlines", "detect": "points"}
_STAINS = {"he": "H&E", "ihc": "IHC"}


def page(text: str) -> str:
    """The page with the table and the sections of all sets.

    Args:
        text: The page as it is.

    Returns:
        The page as it should be.
    """
    sets = [public_set(name) for name in names()]
    header = [*_COLUMNS, _COMMERCIAL]
    rows = [header, ["---"] * len(header), *(_row(public) for public in sets)]
    table = "\n".join(f"| {' | '.join(row)} |".replace("*", r"\*") for row in rows)
    above = text.split("\n| Name |")[0].rstrip()
    return "\n\n".join([above, table, *map(_section, sets)]) + "\n"


def _row(public: PublicSet) -> list[str]:
    return [
        f"[`{public.name}`](#{_anchor(public)})",
        f"[{public.title}]({public.homepage})",
        _TASKS[public.task],
        public.size,
        _STAINS[public.stain],
        "several" if public.mpp is None else f"{public.mpp:g}",
        public.parts,
        public.groups,
        public.licence,
        "yes" if public.commercial else "no",
    ]


def _section(public: PublicSet) -> str:
    classes = ", ".join(f"`{name}` ({meaning})" for name, meaning in public.classes.items())
    lines = [f"## {public.name} {{#{_anchor(public)}}}", "", "```text", *public.layout, "```", ""]
    lines += [f"Classes: {classes}.", ""]
    lines += [f"- Option `{name}`: {meaning}." for name, meaning in public.options.items()]
    lines += [f"- {_sentence(note)}" for note in public.notes]
    lines += [f"- Cite: {public.citation}."]
    return "\n".join(lines)


def _sentence(note: str) -> str:
    """A note without the name of its set."""
    text = note.partition(": ")[2]
    return f"{text[0].upper()}{text[1:]}."


def _anchor(public: PublicSet) -> str:
    return f"set-{public.name.replace('+', 'p')}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
