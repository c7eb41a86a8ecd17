"""Pretraining and evaluation. Not part of the wheel.

`python -m training.X` of a module that is no command ends with a line that names the command.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Every module with a command line of its own.
COMMANDS = (
    "training.archive",
    "training.backbones.imagenet_weights",
    "training.backbones.widen",
    "training.data.shards",
    "training.evaluate",
    "training.evaluation.stain_guess",
    "training.experiments",
    "training.export",
    "training.plan",
    "training.pretrain",
    "training.publish",
    "training.publishing.bundle",
    "training.publishing.card",
    "training.publishing.nuclei_card",
    "training.publishing.overlap",
    "training.publishing.refresh",
    "training.report",
)
# Package or module -> the command that uses it; for all others it is pretrain.
_COMMAND_OF = {
    "training.archive": "training.archive",
    "training.archive.sources": "training.archive",
    "training.evaluation": "training.evaluate",
    "training.evaluation.eva": "training.evaluate",
    "training.evaluation.experiments_table": "training.experiments",
    "training.evaluation.plan": "training.experiments",
    "training.evaluation.whole": "training.evaluate",
    "training.monitor.retrieval": "training.report",
    "training.provenance": "training.export",
    "training.publishing": "training.publish",
    "training.publishing.average": "training.export",
    "training.trainer.export": "training.export",
}


def _explain(module: str) -> str | None:
    """The line for `python -m MODULE`; None for a command, and for what does not exist."""
    place = Path(__file__).parent.joinpath(*module.split(".")[1:])
    there = place.is_dir() or place.with_suffix(".py").is_file()
    if module in COMMANDS or module.split(".")[0] != "training" or not there:
        return None
    package = module.rpartition(".")[0]
    command = _COMMAND_OF.get(module) or _COMMAND_OF.get(package) or "training.pretrain"
    return f"{module} is not a command. Run: python -m {command} --help"


def _module_of_command_line() -> str | None:
    """MODULE of `python -m MODULE`, while Python looks for it; None in any other program."""
    if sys.argv[:1] != ["-m"]:
        return None
    given = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return given[-1].removeprefix("-m") if given else None


if (_module := _module_of_command_line()) and (_line := _explain(_module)):
    sys.exit(_line)
