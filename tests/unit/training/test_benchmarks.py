"""The benchmarks import what is there: nothing else runs them."""

import subprocess
import sys

import pytest
from paths import ROOT

pytestmark = pytest.mark.full


def test_every_benchmark_can_be_imported() -> None:
    """One process, as `python -m tests.benchmarks.NAME` starts it."""
    names = sorted(f.stem for f in (ROOT / "tests" / "benchmarks").glob("[!_]*.py"))
    imports = "".join(f"import tests.benchmarks.{name}\n" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", imports], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
