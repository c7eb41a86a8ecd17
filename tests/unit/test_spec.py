"""EncoderSpec: invalid values are refused, and JSON keeps every field."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathencoder.errors import ConfigError
from pathencoder.pretrained.catalogue import catalogue
from pathencoder.spec import INTERPOLATIONS, LAYOUTS, RESIZES, STAINS, EncoderSpec

GOOD = dict(
    name="x",
    architecture="resnet18",
    dim=512,
    width=512,
    input_size=224,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("width", -1),
        ("input_size", 0),
        ("mean", (0.5, 0.5)),
        ("mean", (math.nan, 0.5, 0.5)),
        ("std", (0.5, 0.5, 0.0)),
        ("embedding", "cls+mean"),
        ("interpolation", "nearest"),
        ("resize", "stretch"),
        ("layout", "keras"),
        ("stains", ("h&e",)),
        ("mpp", 0.0),
        ("mpp_range", (2.0, 0.25)),
    ],
)
def test_invalid_values_are_refused_with_the_encoders_name(field, value):
    with pytest.raises(ConfigError, match="'x'"):
        EncoderSpec(**{**GOOD, field: value})


def test_unknown_statistics_need_a_file_that_knows_them():
    nan = (math.nan,) * 3
    assert not EncoderSpec(
        **{**GOOD, "mean": nan, "std": nan, "config_file": "config.json"}
    ).normalisation_known
    assert EncoderSpec(**GOOD).normalisation_known


@pytest.mark.parametrize(
    ("mpp", "span", "expected"),
    [
        (0.5, None, 0.5),
        (None, (0.25, 2.0), 0.5),
        (None, (1.0, 2.0), 1.0),
        (None, (0.1, 0.3), 0.3),
        (None, None, None),
    ],
)
def test_reading_scale(mpp, span, expected):
    assert EncoderSpec(**GOOD, mpp=mpp, mpp_range=span).reading_mpp == expected


@pytest.mark.parametrize("name", [n for n, s in catalogue().items() if s.normalisation_known])
def test_every_row_survives_json(name):
    spec = catalogue()[name]
    assert EncoderSpec.from_config(json.loads(json.dumps(spec.to_config()))) == spec


specs = st.builds(
    EncoderSpec,
    name=st.text(min_size=1, max_size=20),
    architecture=st.just("resnet18"),
    dim=st.integers(1, 5000),
    width=st.integers(1, 5000),
    input_size=st.integers(1, 1000),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 1)] * 3),
    model_args=st.dictionaries(
        st.sampled_from(["img_size", "init_values"]), st.floats(0.1, 10) | st.integers(1, 10)
    ),
    embedding=st.sampled_from(
        ["cls", "mean", "cls_mean", "pool", "stages:blocks.2,blocks.4", "stages:a.1/mean,max"]
    ),
    interpolation=st.sampled_from(INTERPOLATIONS),
    resize=st.sampled_from(RESIZES),
    stains=st.lists(st.sampled_from(STAINS), unique=True, min_size=1).map(tuple),
    layout=st.sampled_from(LAYOUTS),
    mpp=st.none() | st.floats(0.01, 100),
    files=st.lists(st.sampled_from(["a.bin", "b.safetensors"]), unique=True).map(tuple),
)


@settings(max_examples=50, deadline=None)
@given(specs)
def test_any_spec_survives_json(spec):
    assert EncoderSpec.from_config(json.loads(json.dumps(spec.to_config()))) == spec


def test_timm_reads_the_same_preprocessing():
    """crop_pct 1 unless there is a larger resize.

    timm's default would cut an eighth of every tile away.
    """
    assert EncoderSpec(**GOOD).to_config()["pretrained_cfg"]["crop_pct"] == 1.0
    assert catalogue()["prov-gigapath"].to_config()["pretrained_cfg"]["crop_pct"] == 224 / 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("pathencoder"), "spec_version"),
        (lambda c: c["pathencoder"].update(spec_version=99), "pip install -U pathencoder"),
        (lambda c: c.pop("architecture"), "incomplete"),
        (lambda c: c["pathencoder"].pop("dim"), "incomplete"),
    ],
)
def test_each_kind_of_broken_config_is_named(change, message):
    config = EncoderSpec(**GOOD).to_config()
    change(config)
    with pytest.raises(ConfigError, match=message):
        EncoderSpec.from_config(config)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("architecture", [True, 3, [], {}, "hf-hub:owner/repo", "local-dir:/x", ""]),
        ("model_args", [[], "img_size", 1]),
        ("files", ["model.safetensors", [["a"]], [1]]),
        ("dim", ["768", 7.5, True, None]),
        ("input_size", [0, 1_000_000, "224"]),
        ("mean", [0.5, "0.5", [0.5, 0.5, "x"]]),
        ("mpp", ["0.5", True]),
        ("commercial", ["yes", 1]),
        ("name", [None, 3]),
    ],
)
def test_fields_of_another_type(field, values):
    for value in values:
        with pytest.raises(ConfigError, match=field):
            EncoderSpec(**{**GOOD, field: value})


@pytest.mark.parametrize("section", [3.5, [], "text", {"spec_version": "1"}])
def test_a_section_of_another_type(section):
    with pytest.raises(ConfigError, match="spec_version"):
        EncoderSpec.from_config({**EncoderSpec(**GOOD).to_config(), "pathencoder": section})


def test_fields_of_later_versions_are_skipped():
    config = EncoderSpec(**GOOD).to_config()
    config["pathencoder"]["colour"] = "purple"
    assert EncoderSpec.from_config(config) == EncoderSpec(**GOOD)


@pytest.mark.parametrize(
    "rule",
    [
        "cls",
        "mean",
        "cls_mean",
        "pool",
        "stages:a.1",
        "stages:a.1,b.2",
        "stages:a.1/mean,centre,max,peak",
    ],
)
def test_embedding_rules(rule):
    assert EncoderSpec(**{**GOOD, "embedding": rule}).embedding == rule


@pytest.mark.parametrize(
    "rule", ["", "best", "stages:", "stages:a.1/", "stages:a.1/median", "stages:a.1,/mean"]
)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ConfigError, match="embedding rule"):
        EncoderSpec(**{**GOOD, "embedding": rule})


def test_a_spec_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EncoderSpec(**GOOD).dim = 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": 0.5}, "architecture must be str, found 0.5"),
        ({"model_args": ["x"]}, "model_args must be dict"),
        ({"pathencoder": 7}, "no `pathencoder` section"),
        ({"pretrained_cfg": {"mean": "abc", "std": [1, 1, 1]}}, "mean must be tuple"),
    ],
)
def test_a_config_of_other_kinds_of_values_is_refused(change, words):
    config = {**EncoderSpec(**GOOD).to_config(), **change}
    with pytest.raises(ConfigError, match=words):
        EncoderSpec.from_config(config)


def test_a_number_where_a_list_belongs_is_refused():
    config = EncoderSpec(**GOOD).to_config()
    config["pathencoder"]["stains"] = 3
    with pytest.raises(ConfigError, match="stains must be tuple"):
        EncoderSpec.from_config(config)
