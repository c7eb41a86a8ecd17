"""Tests of the extras are left out where they are not asked for.

A module marked `full` imports its extras at the top. Under `-m "not full"` it is not imported;
everywhere else an extra that is missing is an error, not a skipped test.
"""

import re

_FULL = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.full", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Whether a file is left out: True, or None for no opinion."""
    if config.option.markexpr != "not full" or not collection_path.name.startswith("test_"):
        return None
    if collection_path.suffix != ".py":
        return None
    return True if _FULL.search(collection_path.read_text(encoding="utf-8")) else None
