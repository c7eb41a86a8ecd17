"""A minute of damaged files.

Always the same ones, so that a change that breaks one is seen at once. `run.py` goes on from there.
"""

import sys

import pytest

from tests.fuzz import run

pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="select takes no pipes there"),
]
CASES = 500


@pytest.mark.timeout(900)
def test_damaged_files_end_as_documented():
    found = run.fuzz(seconds=600, seed=0, last=CASES)
    assert found.wrong == []
    assert found.cases == CASES
