"""The catalogue is complete, marks what is not known, and can be searched."""

import csv
import re

import numpy as np
import pytest
from paths import DATA, ROOT

from pathencoder import list_encoders, load_encoder
from pathencoder.pretrained import catalogue, locate
from pathencoder.pretrained.catalogue import catalogue as rows

FACTS = {
    row["key"]: row for row in csv.DictReader((DATA / "encoders.csv").read_text().splitlines())
}
PUBLIC = sorted(FACTS)

PROMISED = {
    *(
        "uni",
        "uni2-h",
        "virchow",
        "virchow2",
        "prov-gigapath",
        "h-optimus-0",
        "h-optimus-1",
        "h0-mini",
        "phikon",
        "phikon-v2",
    ),
    *(
        "hibou-b",
        "hibou-l",
        "kaiko-vits16",
        "kaiko-vitb8",
        "lunit-vits16",
        "lunit-vits8",
        "midnight-12k",
        "openmidnight",
        "gpfm",
    ),
    *("prost40m", "ctranspath"),
}


def test_promised_encoders_are_there():
    assert set(rows()) >= PROMISED


def test_every_public_row_has_facts_to_be_tested_against():
    assert set(rows()) - set(catalogue.bundled()) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_normalisation_is_the_publishers(name):
    spec, fact = rows()[name], FACTS[name]
    if name == "prost40m":
        assert not spec.normalisation_known
        assert spec.config_file
    elif fact["mean"] != "?":
        assert spec.mean == tuple(float(v) for v in fact["mean"].split(","))
        assert spec.std == tuple(float(v) for v in fact["std"].split(","))


@pytest.mark.parametrize("name", PUBLIC)
def test_readout_is_the_recommended_one(name):
    spec, fact = rows()[name], FACTS[name]
    assert (spec.dim, spec.width, spec.prefix_tokens) == (
        int(fact["dim"]),
        int(fact["width"]),
        int(fact["prefix_tokens"]),
    )
    if spec.embedding != "head":
        assert spec.dim == spec.width * (2 if spec.embedding == "cls_mean" else 1)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_row_names_its_source_and_is_not_verified(name):
    spec = rows()[name]
    assert not spec.verified
    assert spec.repo
    assert spec.files
    assert spec.licence != "unknown"
    assert spec.reference
    assert spec.training
    assert spec.revision is None or len(spec.revision) == 40
    assert spec.sha256 is None or (len(spec.sha256) == 64 and spec.sha256 == spec.sha256.lower())


def test_pickles_are_named_last():
    for spec in rows().values():
        kinds = [name.endswith(".safetensors") for name in spec.files]
        assert kinds == sorted(kinds, reverse=True), spec.name


MEANS = [
    ("kaiko-vits16", 0.5),
    ("midnight-12k", 0.5),
    ("openmidnight", 0.485),
    ("h-optimus-1", 0.707223),
    ("hibou-b", 0.7068),
]


@pytest.mark.parametrize(("name", "mean"), MEANS)
def test_normalisation_is_not_uniform(name, mean):
    assert rows()[name].mean[0] == mean


def test_the_bundled_names_come_first():
    assert list_encoders()[0] == catalogue.DEFAULT
    assert list_encoders()[: len(catalogue.bundled())] == catalogue.bundled()


def test_there_are_more_than_forty_public_encoders_that_load():
    assert len(PUBLIC) > 40


def test_search_by_size():
    small = list_encoders(max_params=30e6)
    assert {catalogue.DEFAULT, "kaiko-vits16", "retccl"} <= set(small)
    assert not {"uni", "phikon"} & set(small)


def test_search_by_pattern_stain_and_licence():
    assert list_encoders("*phikon*") == ["phikon", "phikon-v2"]
    assert "virchow2" in list_encoders(stain="ihc")
    assert "virchow" not in list_encoders(stain="ihc")
    free, bound = list_encoders(commercial=True), list_encoders(commercial=False)
    assert {"virchow", "h-optimus-0", "midnight-12k", catalogue.DEFAULT} <= set(free)
    assert {"uni", "kaiko-vits16", "ctranspath"} <= set(bound)
    assert not set(free) & set(bound)


def test_an_unknown_stain_is_refused():
    from pathencoder.errors import ConfigError

    with pytest.raises(ConfigError, match="he, ihc"):
        list_encoders(stain="h&e")


def test_the_catalogue_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        rows()["uni"] = None


def test_the_default_is_bundled_and_free():
    spec = rows()[catalogue.DEFAULT]
    assert spec.commercial
    assert (catalogue.BUNDLED / catalogue.DEFAULT / "LICENSE").is_file()


@pytest.mark.parametrize("name", catalogue.bundled())
def test_bundled_weights_have_a_version_whose_bytes_do_not_change(name):
    """New weights need a new version, in their config.json and in docs/versioning.md."""
    spec = rows()[name]
    listed = re.findall(
        rf"^\| {name} \| (\S+) \| \S+ \| `(\w+)` \|$",
        (ROOT / "docs/versioning.md").read_text(),
        re.MULTILINE,
    )
    assert dict(listed)[spec.version] == spec.sha256


def test_names_in_any_case():
    assert catalogue.find("UNI2-H") == "uni2-h"
    assert catalogue.find("PathEncoder-Tiny") == catalogue.DEFAULT
    assert catalogue.find("uni") == "uni"
    assert catalogue.find("uni9") is None
    assert locate.describe("Phikon").name == "phikon"
    assert catalogue.list_encoders("*PHIKON*") == catalogue.list_encoders("*phikon*") != []


@pytest.mark.parametrize("name", ["sp22m", "retccl", "chief-ctranspath", "plip"])
def test_small_encoders_run_with_random_weights(name, no_hub):
    encoder = load_encoder(name, pretrained=False, device="cpu")
    rows = encoder.encode(np.full((1, 64, 64, 3), 128, np.uint8), progress=False)
    assert rows.shape == (1, catalogue.catalogue()[name].dim)
    assert np.isfinite(rows).all()
