"""Features as AnnData, with stand-ins for anndata and pandas (the real ones: tests/peers)."""

import sys
import types

import numpy as np
import pytest

import pathencoder
from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.features.store import Failure, FeatureFile


class Frame:
    def __init__(self, data=None, index=None):
        self.data, self.index = data or {}, list(index)


class Data:
    def __init__(self, **parts):
        self.__dict__.update(parts)


@pytest.fixture
def _tools(monkeypatch):
    anndata, pandas = types.ModuleType("anndata"), types.ModuleType("pandas")
    anndata.AnnData, pandas.DataFrame = Data, Frame
    monkeypatch.setitem(sys.modules, "anndata", anndata)
    monkeypatch.setitem(sys.modules, "pandas", pandas)


def features(**changes):
    parts = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "coords": np.array([[10, 20], [30, 40]]),
        "unit": "px",
        "keys": None,
        "layout": "trident",
        "failures": [],
        "attributes": {"encoder": "small", "slide_mpp": 0.25},
    }
    return FeatureFile(**(parts | changes))


@pytest.mark.usefixtures("_tools")
def test_tiles_of_a_slide():
    made = pathencoder.to_anndata(features())
    assert made.X.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert made.obs.index == ["10_20", "30_40"]
    assert made.obs.data["y"].tolist() == [20, 40]
    assert made.obsm["spatial"].tolist() == [[10.0, 20.0], [30.0, 40.0]]
    assert made.var.index == ["small_0", "small_1", "small_2"]
    assert made.uns["pathencoder"] == {"unit": "px", "encoder": "small", "slide_mpp": 0.25}


@pytest.mark.usefixtures("_tools")
def test_images_have_keys_and_no_places():
    made = pathencoder.to_anndata(features(coords=None, unit="", keys=["a.png", "b.png"]))
    assert made.obs.index == ["a.png", "b.png"]
    assert made.obsm == {}


@pytest.mark.usefixtures("_tools")
def test_tiles_that_failed_are_kept():
    made = pathencoder.to_anndata(features(failures=[Failure("1,2", "damaged", "SlideError")]))
    assert made.uns["pathencoder"]["failed"].tolist() == [["1,2", "damaged", "SlideError"]]


@pytest.mark.usefixtures("_tools")
def test_maps_are_refused():
    with pytest.raises(ConfigError, match="one vector for each tile"):
        pathencoder.to_anndata(features(rows=np.zeros((2, 3, 4, 4), np.float32)))


def test_without_anndata(monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtra, match="pip install anndata"):
        pathencoder.to_anndata(features())
