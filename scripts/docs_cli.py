"""Write the documentation's command line page from the help texts of the commands.

python scripts/docs_cli.py docs/cli.md
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from pathencoder.cli.main import VERBS, group

_HEAD = """# Command line

`python -m pathencoder` is the same command. Exit status: 0 all done, 1 failed, 2 wrong usage,
3 done but some inputs failed, 130 interrupted.
"""
_WIDTH = 84


def page() -> str:
    """Markdown: the whole command's help, then each verb's."""
    parts = [_HEAD, _help(group, "pathencoder", None)]
    root = click.Context(group, info_name="pathencoder")
    for verb, module in VERBS.items():
        command = importlib.import_module(f"pathencoder.cli.{module}").command
        parts += [f"\n## pathencoder {verb}\n", _help(command, verb, root)]
    return "\n".join(parts)


def _help(command: click.Command, name: str, parent: click.Context | None) -> str:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    return f"```text\n{command.get_help(context)}\n```"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
