"""Encoders that are listed but not loaded: complete rows, their own names, a clear error."""

import pytest

import pathencoder
from pathencoder.errors import ConfigError, UnknownEncoder
from pathencoder.pretrained import catalogue, listed


def test_no_name_is_loaded_and_listed():
    assert not set(listed.listed()) & set(catalogue.catalogue())


@pytest.mark.parametrize("one", listed.listed().values(), ids=list(listed.listed()))
def test_a_row_says_what_it_needs(one):
    assert one.name == one.name.casefold()
    assert one.title
    assert one.licence
    assert one.place
    assert one.needs
    assert not one.needs.endswith(".")


@pytest.mark.parametrize(
    "name",
    ["titan", "gigapath-slide", "prism", "madeleine", "chief", "threads", "feather-uni2-h"],
)
def test_slide_encoders_name_their_tile_encoder(name):
    one = listed.listed()[name]
    assert one.kind == "slide"
    first = one.tiles.split(" ")[0]
    assert first in catalogue.catalogue() or first in listed.listed(), first


def test_loading_one_says_what_it_needs():
    with pytest.raises(UnknownEncoder, match=r"does not load it: it needs .*conch.*CC-BY-NC-ND"):
        pathencoder.load_encoder("CONCH")


def test_a_bad_row_is_refused():
    good = dict(name="x", title="X", licence="MIT", place="owner/x", needs="code")
    listed.ListedEncoder(**good, kind="tile")
    with pytest.raises(ConfigError, match="kind"):
        listed.ListedEncoder(**good, kind="patch")
    with pytest.raises(ConfigError, match="slide encoders"):
        listed.ListedEncoder(**good, kind="slide")
