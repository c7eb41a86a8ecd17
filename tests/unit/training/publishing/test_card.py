"""The card: every figure is a measured one, of the row that it is about."""

import dataclasses

import pytest

from pathencoder.encoder import load_encoder
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
        "command": "python -m training.evaluate probe default",
        "weights_sha256": "abc",
        "row": "default",
        "note": "Chosen by folds.",
        "training": {"steps": [1000], "cpu_seconds": 1200},
        "measured": {
            "sets": {"amibr": rows},
            "means": {"default": {"H&E sets": 0.671}, "imagenet, middle": {"H&E sets": 0.617}},
            "paired": {"amibr": {"default": paired, "three runs": paired}},
        },
        **more,
    }


CONFIG = {"data": {"batch": 64, "slide_power": 0.5}}
SOURCES = [("osteo", "he", "P", 622, 4), ("kidney", "special", "P", 285, 9)]


@pytest.fixture(scope="module")
def spec():
    return dataclasses.replace(
        load_encoder().spec, training="simclr, 1000 steps of 64 tiles; 907 tiles of 13 slides"
    )


def test_the_card_has_the_figures_of_its_row(spec):
    text = card(spec, CONFIG, figures(), SOURCES)
    assert "| **default** |" in text
    assert "0.671 [0.62, 0.72] / 0.621" in text
    assert "H&E sets 0.671 (imagenet, middle 0.617)" in text
    assert "amibr +0.054 [+0.012, +0.098]" in text
    assert "trained by self-supervision on 907 tiles" in text
    assert "20 core-minutes" in text
    assert "Chosen by folds." in text
    assert "| kidney | special | P | 285 | 9 |" in text


def test_crops_and_averages_are_described(spec):
    fields = [[0.05, 1.0], [1.0, 1.0], [0.03, 0.5]]
    several = figures(
        training={"runs": 3, "steps": [1000, 1000, 900], "fields": fields, "cpu_seconds": 3600}
    )
    text = card(spec, CONFIG, several, SOURCES)
    assert "one field of 3% to 50%, in other runs of 5% to 100% of its area" in text
    assert "plain average of 3 such runs" in text
    assert "60 core-minutes" in text


def test_the_deviation_over_training_runs_is_given_where_there_are_several(spec):
    text = card(spec, CONFIG, figures(), SOURCES)
    assert "`three runs` is the mean of 3 training runs" in text
    assert "amibr 0.668 sd 0.011" in text
    alone = figures()
    del alone["measured"]["sets"]["amibr"]["three runs"]
    assert "One training run" in card(spec, CONFIG, alone, SOURCES)


def test_robustness_is_shown_where_it_was_measured(spec):
    assert "Another stain" not in card(spec, CONFIG, figures(), SOURCES)
    run = {
        "centred_cosine": 0.99,
        "rank": 80.0,
        "knn": {"clean": [0.7], "mix": [0.6, 0.7], "hue": [0.65], "tone": [0.66]},
    }
    text = card(
        spec, CONFIG, figures(robustness={"default": [run, {**run, "rank": 90.0}]}), SOURCES
    )
    assert "| default | 0.9900 | 85 | 0.700 | 0.650 / 0.650 / 0.660 |" in text
