"""The card: every figure is a measured one, of the row that it is about."""

import dataclasses
import json

import pytest
from paths import ROOT

from pathencoder.pretrained.folder import read_spec, sha256_of
from training.backbones.known_starts import MOBILENET_V2
from training.data.contents import Contents, Count, Scale
from training.provenance.record import CorpusRecord, Provenance, Source
from training.publishing import card as cards
from training.publishing.card import card

pytestmark = pytest.mark.full


def summary(auroc, runs=1):
    return {
        "auroc": auroc,
        "auroc_sd": 0.011,
        "linear": auroc - 0.05,
        "auroc_interval": (auroc - 0.05, auroc + 0.05),
        "part": "test",
        "n": 826,
        "groups": 56,
        "runs": runs,
    }


def figures(**more):
    rows = {
        "default": summary(0.671),
        "imagenet, middle": summary(0.617),
        "three runs": summary(0.668, runs=3),
    }
    paired = {"difference": 0.054, "interval": (0.012, 0.098), "floor": "imagenet, middle"}
    return {
        "weights_sha256": "abc",
        "row": "default",
        "note": "Chosen by folds.",
        "training": {"steps": [1000], "cpu_seconds": 1200, "sources": SOURCES},
        "measured": {
            "sets": {"amibr": rows},
            "means": {"default": {"H&E sets": 0.671}, "imagenet, middle": {"H&E sets": 0.617}},
            "paired": {"amibr": {"default": paired, "three runs": paired}},
            "about": {"command": "python -m training.evaluate probe default", "seeds": 5},
        },
        **more,
    }


SOURCES = [("osteo", "he", "P", 622, 4), ("kidney", "special", "P", 285, 9)]
CONFIG = {"data": {"batch": 64, "slide_power": 0.5}, "method": {"name": "simclr"}}
KNOWN = Source(name="theirs", sha256="0", licence="MIT", commercial=True)
RECORD = Provenance(
    start=None,
    continued=None,
    teachers=(),
    corpus=CorpusRecord(
        digest="0",
        tiles=907,
        slides=13,
        contents=Contents({"P": Count(907, 13)}, {"he": Count(907, 13)}, None),
    ),
    licence="Apache-2.0",
    stated=None,
    commercial=True,
    precision="bfloat16",
    processes=1,
    hardware="unknown",
    commit=None,
    version="0",
    torch="2",
    seed=0,
    settings="",
)


@pytest.fixture(scope="module")
def spec():
    return dataclasses.replace(
        read_spec(ROOT / "pathencoder/weights/pathencoder-tiny"),
        training="simclr, 1000 steps of 64 tiles; 907 tiles of 13 slides",
    )


def recorded(**changes):
    corpus = {k: changes.pop(k) for k in ("tiles", "slides", "contents") if k in changes}
    return dataclasses.replace(
        RECORD, corpus=dataclasses.replace(RECORD.corpus, **corpus), **changes
    )


def test_the_card_has_the_figures_of_its_row(spec):
    text = card(spec, [CONFIG], figures(), RECORD)
    assert "| **default** |" in text
    assert "0.671 [0.62, 0.72] / 0.621" in text
    assert "H&E sets 0.671 (imagenet, middle 0.617)" in text
    assert "amibr +0.054 [+0.012, +0.098]" in text
    assert "trained by simclr on 907 tiles of 13 slides" in text
    assert "20 core-minutes" in text
    assert "Chosen by folds." in text
    assert "| kidney | special | P | 285 | 9 |" in text
    assert "means of 5 seeds of the folds" in text


def test_crops_and_averages_are_described(spec):
    fields = [[0.05, 1.0], [1.0, 1.0], [0.03, 0.5]]
    several = figures(
        training={"runs": 3, "steps": [1000, 1000, 900], "fields": fields, "cpu_seconds": 3600}
    )
    text = card(spec, [CONFIG], several, RECORD)
    assert "one field of 3% to 50%, in other runs of 5% to 100% of its area" in text
    assert "plain average of 3 such runs" in text
    assert "60 core-minutes" in text


def test_the_deviation_over_training_runs_is_given_where_there_are_several(spec):
    text = card(spec, [CONFIG], figures(), RECORD)
    assert "`three runs` is the mean of 3 training runs:" in text
    assert "amibr 0.668 sd 0.011" in text
    alone = figures()
    del alone["measured"]["sets"]["amibr"]["three runs"]
    assert "One training run" in card(spec, [CONFIG], alone, RECORD)


def test_robustness_is_shown_where_it_was_measured(spec):
    assert "Another stain" not in card(spec, [CONFIG], figures(), RECORD)
    run = {
        "centred_cosine": 0.99,
        "rank": 80.0,
        "knn": {"clean": [0.7], "mix": [0.6, 0.7], "hue": [0.65], "tone": [0.66]},
    }
    shifts = {"default": [run, {**run, "rank": 90.0}]}
    text = card(spec, [CONFIG], figures(robustness=shifts), RECORD)
    assert "| default | 0.9900 | 85 | 0.700 | 0.650 / 0.650 / 0.660 |" in text
    assert "mean of 2 draws of each shift" in text


ASSERTED = {
    "start": ("Start: theirs (MIT).", "Start: random weights."),
    "imagenet": ("which the training starts from", "Rows `imagenet`: ImageNet weights"),
    "slides": ("no slide twice in a batch", "slides drawn with probability ~ tiles^0.5."),
    "hardware": ("one process; Xeon; bfloat16", "hardware: not recorded"),
    "scale": ("stated for 9 of 907 tiles, 0.25 to 1", "Micrometres per pixel: not recorded"),
    "processes": ("the first of 8 processes", "one process"),
}
CHANGES = {
    "start": {"start": KNOWN},
    "imagenet": {"start": dataclasses.replace(KNOWN, sha256=MOBILENET_V2)},
    "slides": {"slides": 64},
    "hardware": {"hardware": "Xeon"},
    "scale": {"contents": Contents({}, {"he": Count(907, 13)}, Scale(9, 0.25, 0.5, 1.0))},
    "processes": {"processes": 8},
}


@pytest.mark.parametrize("what", ASSERTED)
def test_a_statement_is_made_only_where_the_record_has_it(spec, what):
    there, absent = ASSERTED[what]
    without = card(spec, [CONFIG], figures(), RECORD)
    having = card(spec, [CONFIG], figures(), recorded(**CHANGES[what]))
    assert there in having
    assert there not in without
    assert absent in without


def test_nothing_is_asserted_of_an_encoder_of_which_nothing_is_known(spec):
    bare = figures()
    bare["measured"] = {
        "sets": {"mine": {"default": summary(0.7)}},
        "means": {},
        "paired": {},
    }
    bare["training"] = {"cpu_seconds": 60}
    other = dataclasses.replace(spec, name="other", mpp=None, embedding="pool")
    text = card(other, [CONFIG], bare, RECORD)
    for constant in (
        "ImageNet",
        "Stain jitter",
        "moving average",
        "amibr",
        "crc_polyp5",
        "small samples",
        "mpp=",
        "create_model",
        "Statements by",
        "IHC",
        "test part",
        "CPU core",
    ):
        assert constant not in text, constant
    assert "the number of seeds: not recorded" in text
    assert "Command: `not recorded`" in text
    assert 'load_encoder("other")' in text
    assert "| P | 907 | 13 |" in text


def test_jitter_and_averages_are_those_of_every_run(spec):
    colour = {"he_scale": 0.15, "he_shift": 0.05, "od_scale": 0.06, "od_shift": 0.02}
    one = {**CONFIG, "method": {"name": "simclr", "colour": colour, "average": 0.99}}
    two = {**one, "method": {**one["method"], "colour": {**colour, "he_scale": 0.3}}}
    text = card(spec, [one, two], figures(), RECORD)
    assert "for he (scale 0.15 or 0.3, shift 0.05)" in text
    assert "moving average (decay 0.99)" in text


def test_what_maintainers_state_is_said_to_be_theirs(spec):
    by = recorded(written_by="maintainers", statements=("No test tile was trained on.",))
    text = card(spec, [CONFIG], figures(), by)
    assert "The record of this run was written by maintainers." in text
    assert "not from the run:\n\n- No test tile was trained on." in text
    again = Provenance.from_json(by.to_json())
    assert (again.written_by, again.statements) == (by.written_by, by.statements)


@pytest.mark.parametrize("name", cards.recorded())
def test_the_card_of_a_bundled_encoder_is_that_of_its_record(name):
    assert (ROOT / "pathencoder/weights" / name / "README.md").read_text() == cards.card_of(name)
    assert (ROOT / "model_cards" / name / "README.md").read_text() == cards.page_of(name)


def test_a_bundled_encoders_figures_are_of_its_weights():
    for name in cards.recorded():
        weights = ROOT / "pathencoder/weights" / name
        figures = json.loads((weights / "metrics.json").read_text())
        sha256 = sha256_of(weights / "model.safetensors")
        assert figures["weights_sha256"] == read_spec(weights).sha256 == sha256
        assert sha256 in (weights / "README.md").read_text()


def test_cards_and_figures_exist_once():
    weights = {sha256_of(f) for f in (ROOT / "pathencoder/weights").rglob("*") if f.is_file()}
    shown = [f for f in (ROOT / "model_cards").rglob("*") if f.is_file()]
    assert len(shown) > 20
    assert [f for f in shown if f.name == "metrics.json" or sha256_of(f) in weights] == []


def test_every_bundled_encoder_has_a_record_of_its_own_licence():
    names = {f.parent.name for f in (ROOT / "pathencoder/weights").glob("*/reference.safetensors")}
    assert names == set(cards.recorded())
    for name in names:
        text = (ROOT / "model_cards" / name / "provenance.json").read_text()
        made_from = Provenance.from_json(json.loads(text))
        spec = read_spec(ROOT / "pathencoder/weights" / name)
        assert (made_from.licence, made_from.commercial) == (spec.licence, spec.commercial)
        assert (
            f"{made_from.corpus.tiles} tiles of {made_from.corpus.slides} slides" in spec.training
        )
