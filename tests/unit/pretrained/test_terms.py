"""Loading says licence and commercial use, once."""

import dataclasses

import pytest

from pathencoder.pretrained import catalogue, load


@pytest.mark.parametrize(
    ("name", "level", "use"),
    [
        ("virchow", "INFO", "Apache-2.0; commercial use allowed"),
        ("uni", "WARNING", "CC-BY-NC-ND-4.0; no commercial use"),
    ],
)
def test_licence_and_commercial_use_are_logged_once(name, level, use, caplog):
    load._log_once.cache_clear()
    spec = catalogue.catalogue()[name]
    with caplog.at_level("INFO", logger="pathencoder"):
        load._say_terms(spec)
        load._say_terms(spec)
    (record,) = caplog.records
    assert record.levelname == level
    assert use in record.message


@pytest.mark.parametrize(
    ("licence", "level"), [("CC-BY-NC-4.0", "WARNING"), ("unknown", "INFO"), ("GPL-3.0", "WARNING")]
)
def test_of_an_encoder_in_a_folder_too(licence, level, caplog):
    load._log_once.cache_clear()
    mine = dataclasses.replace(
        catalogue.catalogue()[catalogue.DEFAULT],
        name="mine",
        repo=None,
        licence=licence,
        commercial=False,
    )
    with caplog.at_level("INFO", logger="pathencoder"):
        load._say_terms(mine)
    assert [(r.levelname, licence in r.message) for r in caplog.records] == [(level, True)]


def test_an_encoder_that_expects_prepared_tiles_warns():
    load._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"Macenko.*pathencoder does not do this"):
        load._say_terms(catalogue.catalogue()["exaonepath-1.0"])
