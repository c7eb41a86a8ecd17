"""The benchmarks and the fuzzer import what is there: nothing else runs them."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

pytestmark = pytest.mark.full


@pytest.mark.parametrize("room", ["benchmarks", "fuzz"])
def test_every_tool_can_be_imported(room: str) -> None:
    """One process, as `python -m tests.benchmarks.NAME` starts it."""
    names = sorted(f.stem for f in (ROOT / "tests" / room).glob("[!_]*.py"))
    imports = "".join(f"import tests.{room}.{name}\n" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", imports],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
