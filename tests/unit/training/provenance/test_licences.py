"""The licence of an export: the strictest of its parts, unknown where one is unknown."""

import pytest

from training.provenance import licences


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([], "Apache-2.0"),
        (["MIT", "Apache-2.0"], "Apache-2.0"),
        (["apache-2.0", " CC-BY-4.0"], "Apache-2.0"),
        (["Apache-2.0", "CC-BY-NC-4.0"], "CC-BY-NC-4.0"),
        (["CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "GPL-3.0"], "CC-BY-NC-ND-4.0"),
        (["Apache-2.0", "unknown", "CC-BY-NC-ND-4.0"], "unknown"),
        (["Apache-2.0", ""], "unknown"),
        (["Apache-2.0", "Owkin non-commercial"], "Owkin non-commercial"),
        (
            ["CC-BY-NC-4.0", "Owkin non-commercial", "Lunit non-commercial"],
            "CC-BY-NC-4.0 and Lunit non-commercial and Owkin non-commercial",
        ),
    ],
)
def test_the_strictest_licence_holds(parts, whole):
    assert licences.strictest(parts) == whole
    assert licences.is_commercial(whole) == (whole == "Apache-2.0")


def test_tiles_have_the_licence_of_their_class_and_a_statement_holds_for_unknown_ones_only():
    assert licences.of_tiles(["P"], None) == "Apache-2.0"
    assert licences.of_tiles(["P", "N"], "Apache-2.0") == "CC-BY-NC-4.0"
    assert licences.of_tiles(["P", "unknown"], None) == "unknown"
    assert licences.of_tiles(["P", "unknown"], "MIT") == "Apache-2.0"


def test_a_licence_that_the_table_names_counts_as_itself():
    assert licences.of_tiles(["P", "CC-BY-4.0"], None) == "Apache-2.0"
    assert licences.of_tiles(["P", "N", "CC-BY-NC-ND-4.0"], None) == "CC-BY-NC-ND-4.0"
    assert licences.of_tiles(["P", "CC-BY-SA-4.0"], "MIT") == "CC-BY-SA-4.0"
