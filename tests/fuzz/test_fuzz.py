"""A minute of damaged files.

Always the same cases, so that a change that breaks one is found at once. `run.py` runs more.
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
