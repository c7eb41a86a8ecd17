"""Any bytes, names and claims give a valid result or one of the package's errors."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathencoder.errors import ConfigError, MissingMpp
from pathencoder.mpp import GIVEN
from pathencoder.slides.mpp import find_mpp
from pathencoder.tables import read_table
from pathencoder.walk import natural, printable

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=8)
NUMBER = st.one_of(
    st.floats().map(str),
    st.sampled_from(["", "0", "-1", "0,25", "72", "0.25", "nan", "1e-400", "٣"]),
    CELL,
)
KEYS = st.sampled_from(
    [
        "openslide.mpp-x",
        "openslide.mpp-y",
        "aperio.MPP",
        "aperio.AppMag",
        "tiff.XResolution",
        "tiff.YResolution",
        "tiff.ResolutionUnit",
        "tiff.ImageDescription",
        "openslide.objective-power",
    ]
)


def attempt(call, error):
    """(what a call gives, "") or (None, the text of this error)."""
    try:
        return call(), ""
    except error as refused:
        return None, str(refused)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("t") / "t.csv"
    file.write_bytes(data)
    table, refused = attempt(lambda: read_table(file), ConfigError)
    if table is None:
        assert str(file) in refused
    else:
        assert all(row.keys() == set(table.columns) for row in table.rows)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=5),
    delimiter=st.sampled_from(",;\t"),
)
def test_a_table_comes_back_as_it_was_written(rows, delimiter, tmp_path_factory):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["slide", "mpp", "stain"], *rows])
    file = tmp_path_factory.mktemp("t") / "t.csv"
    file.write_text(text.getvalue(), encoding="utf-8", newline="")
    found = [[row[c] for c in ("slide", "mpp", "stain")] for row in read_table(file).rows]
    assert found == [[c.strip() for c in row] for row in rows if any(c.strip() for c in row)]


@settings(max_examples=300, deadline=None)
@given(properties=st.dictionaries(KEYS, NUMBER))
def test_any_claims_give_a_scale_of_a_microscope_or_are_refused(properties):
    found, refused = attempt(lambda: find_mpp(properties, name="x.svs"), MissingMpp)
    if found is None:
        assert "x.svs" in refused
        assert "--mpp" in refused
    else:
        assert GIVEN[0] <= found.value <= GIVEN[1]
        assert found.source


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@given(st.binary(min_size=1, max_size=20))
def test_any_name_is_printable(name):
    shown = printable(os.fsdecode(name))
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.lists(st.text(min_size=1, max_size=6), min_size=3, max_size=3))
def test_natural_order_is_an_order(names):
    keys = [natural(Path(name)) for name in names]
    assert sorted(keys) == sorted(keys[::-1])
