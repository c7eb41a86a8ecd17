"""Tests of the integrations with the real tools, each in an environment of its own.

`make test-peers` builds the environments and runs each file in its own. They need real slides:
PATHENCODER_SLIDES names a folder that holds CMU-1-Small-Region.svs (anywhere below it); without it
they use ../shared/data/slides.
"""

import os
from pathlib import Path

import pytest

from pathencoder import compat, load_encoder

compat.import_timm()  # before any tool imports torchvision
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slides():
    named = os.environ.get("PATHENCODER_SLIDES")
    folders = [Path(named)] if named else [ROOT.parent / "shared/data/slides"]
    found = [f for f in folders if f.is_dir()]
    if not found:
        pytest.skip("no slides: set PATHENCODER_SLIDES")
    return found[0]


@pytest.fixture(scope="session")
def slide(slides):
    """A small H&E slide: 2,220 x 2,967 px at 0.499 um/px."""
    return next(slides.rglob("CMU-1-Small-Region.svs"))


@pytest.fixture(scope="session")
def encoder():
    return load_encoder("pathencoder-tiny", device="cpu")
