"""Which tests run where: extras that were not asked for, and a browser that is not installed.

A module marked `full` imports its extras at the top. Under `-m "not full"` it is not imported;
everywhere else an extra that is missing is an error, not a skipped test. Tests marked `browser`
are skipped where no Chromium is installed.
"""

import re
import shutil

import pytest

from pathencoder import compat

_FULL = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.full", re.MULTILINE)
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_ignore_collect(collection_path, config):
    """Whether a file is left out: True, or None for no opinion."""
    if "not full" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    if collection_path.suffix != ".py":
        return None
    return True if _FULL.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_runtest_setup(item):
    """Skip a test of a browser that is not there, before its fixtures are made."""
    if item.get_closest_marker("browser") and _browser() is None:
        pytest.skip(f"no Chromium on the path (looked for {', '.join(_CHROMIUM)})")


@pytest.fixture(scope="session")
def chromium():
    """The path of Chromium, for tests marked `browser`."""
    return _browser()


@pytest.fixture
def no_hub(monkeypatch):
    """Fails a test whose code downloads from the Hub."""
    # imported while the function is replaced, timm would keep the replacement for later tests
    compat.import_timm()
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("asked the Hub")
    )


def _browser():
    return next(filter(None, map(shutil.which, _CHROMIUM)), None)
