"""The layouts of feature files as test parameters: Zarr needs its extra."""

import pytest

from pathencoder.features import layouts

LAYOUTS = [
    pytest.param(name, marks=pytest.mark.full) if name == "zarr" else name
    for name in layouts.LAYOUTS
]
