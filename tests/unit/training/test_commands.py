"""Every module of training/ that is run as a command does something or names the command."""

import importlib
import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from paths import ROOT

import training
from training import pretrain

pytestmark = pytest.mark.full

FILES = [f for f in (ROOT / "training").rglob("*.py") if f.name != "__init__.py"]
PACKAGES = [f.parent for f in (ROOT / "training").rglob("__init__.py")]
GUARD = 'if __name__ == "__main__":\n'


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=100,
    )


def test_the_commands_are_the_modules_with_a_command_line():
    guarded = {name_of(f) for f in FILES if GUARD in f.read_text(encoding="utf-8")}
    assert guarded == set(training.COMMANDS)


@pytest.mark.parametrize("name", sorted({*map(name_of, FILES), *map(name_of, PACKAGES)}))
def test_every_other_module_and_package_names_a_command(name):
    line = training._explain(name)
    if name in training.COMMANDS:
        assert line is None
    else:
        command = re.fullmatch(rf"{name} is not a command\. Run: python -m (\S+) --help", line)[1]
        assert command in training.COMMANDS


@pytest.mark.parametrize("options", [("-m",), ("-X", "utf8", "-m")])
@pytest.mark.parametrize("name", ["training", "training.monitor", "training.evaluation.probe"])
def test_a_part_run_as_a_command_ends_with_that_line(name, options):
    done = run(*options, name, "-m", "anything")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{training._explain(name)}\n"


def test_what_does_not_exist_is_pythons_own_error():
    assert "No module named training.nothing" in run("-m", "training.nothing").stderr


@pytest.mark.parametrize("name", training.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # a package that is a command
        module = importlib.import_module(f"{name}.__main__")
    main = module.main
    if isinstance(main, click.Command):
        done = CliRunner().invoke(main, ["--help"])
        status, shown = done.exit_code, done.output
    else:
        status, shown = main(["--help"]), capsys.readouterr().out
    assert status == 0
    assert name in shown or "Usage" in shown


def test_other_programs_import_training_unhindered():
    code = "import sys; sys.argv[:] = ['-c']; import training.schedules; print('imported')"
    assert run("-c", code).stdout == "imported\n"


def test_a_failed_run_of_several_processes_ends_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr("logging.shutdown", lambda: None)
    for world, status in (("1", 1), ("2", 0), ("2", 1)):
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(SystemExit) as stop:
            pretrain.end(status)
        assert stop.value.code == status
    assert ended == [1]
