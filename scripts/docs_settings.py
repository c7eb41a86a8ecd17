"""Write the documentation's page of pretraining settings from the typed config.

python scripts/docs_settings.py docs/pretraining-settings.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from training.config.help import Setting, sections

_HEAD = """# Pretraining settings

Every setting of a recipe, as `python -m training.pretrain --help` lists them. A recipe is YAML with
these keys; on the command line they are written `optim.lr=1e-4`. `minutes`, `steps` and `out` stand
for `run.minutes`, `optim.steps` and `run.out`.
"""
_COLUMNS = "| Setting | Default | Values | Meaning |\n|---|---|---|---|\n"


def page() -> str:
    """Markdown: a table for each section of a recipe, then one for each method."""
    parts = [_HEAD]
    for title, about, found in sections():
        rows = "".join(_row(setting) for setting in found)
        parts.append(f"\n## {title}\n\n{about}\n\n{_COLUMNS}{rows}")
    return "".join(parts)


def _row(setting: Setting) -> str:
    default = setting.default if setting.default in ("", "required") else f"`{setting.default}`"
    cells = (f"`{setting.name}`", default, setting.bounds, setting.meaning)
    return f"| {' | '.join(map(_escaped, cells))} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
