"""The card: every figure is a measured one, of the row that it is about."""

import dataclasses
import json
import re

import pytest
from paths import ROOT
from small_reports import encoder, of_spec, report, result

from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import read_spec, sha256_of
from training.data.contents import Contents, Count, Scale
from training.evaluation.report_rows import Difference, Interval, Mean, SetRow, Weights
from training.provenance.record import CorpusRecord, Provenance, Source
from training.publishing import card as cards
from training.publishing.card import card

pytestmark = pytest.mark.full


def about(low, high):
    return Interval(low=low, high=high, resampled="slide")


def evaluated(spec, **changes):
    """A report on one set: this encoder, random weights, and the mean of three training runs."""
    runs = tuple(Weights(sha256=c * 64, fingerprint=c * 64) for c in "def")
    three = dataclasses.replace(encoder("three runs"), weights=runs)
    shared = {"set": "amibr", "n": 826, "n_groups": 56}
    tested = {"encoder": "default", "set": "amibr", "part": "test", "verb": "probe"}
    title = "breast, mitotic figures"
    values = {
        "encoders": (of_spec(spec), three, encoder("random", "random", None)),
        "sets": (SetRow(name="amibr", title=title, stain="he", groups="slide", sha256="c" * 64),),
        "results": (
            result(value=0.671, interval=about(0.613, 0.724), **shared),
            result(metric="linear", value=0.625, interval=None, **shared),
            result(encoder="three runs", value=0.668, sd=0.011, runs=3, interval=None, **shared),
            result(encoder="random", value=0.512, interval=about(0.43, 0.59), **shared),
        ),
        "means": tuple(
            Mean(
                encoder=name, title="H&E sets", verb="probe", metric="auroc", value=value,
                sets=("amibr",),
            )
            for name, value in (("default", 0.675), ("random", 0.515))
        ),
        "differences": (
            Difference(
                **tested, against="random", metric="auroc", value=0.159,
                interval=about(0.102, 0.218),
            ),
        ),
    }  # fmt: skip
    return report(**{**values, **changes})


def figures(spec, *, measured=None, **more):
    """What metrics.json holds."""
    return {
        "weights_sha256": "abc",
        "row": "default",
        "note": "Chosen by folds.",
        "training": {"steps": [1000], "cpu_seconds": 1200, "sources": SOURCES},
        "report": dataclasses.asdict(measured or evaluated(spec)),
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
    text = card(spec, [CONFIG], figures(spec), RECORD)
    assert "| set | part | n (groups) | **default** | three runs | random |" in text
    assert "| test | 826 (56) | 0.671 [0.61, 0.72] / 0.625 |" in text
    assert "| H&E sets (amibr) | AUROC | 0.675 | - | 0.515 |" in text
    assert "| amibr | AUROC | +0.159 [+0.102, +0.218] |" in text
    assert "trained by simclr on 907 tiles of 13 slides" in text
    assert "20 core-minutes" in text
    assert "Chosen by folds." in text
    assert "| kidney | special stains | P | 285 | 9 |" in text
    assert "Command: `python -m training.evaluate all default --out runs/all`" in text
    assert "Below a baseline" not in text


def test_no_figure_is_on_a_card_but_the_measured_ones(spec):
    """Every number with three decimals, or as a bound of an interval, is one of the report's."""
    text = card(spec, [CONFIG], figures(spec), RECORD)
    body = text[text.index("## Measured") : text.index("## The sets of these figures")]
    found = set(re.findall(r"(?<![\d.])\d\.\d{2,3}(?!\d|\.\d)", body))
    values = {"0.671", "0.625", "0.668", "0.512", "0.675", "0.515", "0.011"}
    bounds = {"0.61", "0.72", "0.43", "0.59"}
    assert found == values | bounds | {"0.159", "0.102", "0.218"}


def test_sets_on_which_a_baseline_is_ahead_are_named(spec):
    measured = evaluated(spec)
    (ahead,) = measured.differences
    behind = dataclasses.replace(ahead, value=-0.014, interval=about(-0.07, 0.04))
    other = dataclasses.replace(behind, encoder="three runs", against="default")
    text = card(
        spec, [CONFIG], figures(spec, measured=evaluated(spec, differences=(behind, other))), RECORD
    )
    assert "| amibr | AUROC | -0.014 [-0.070, +0.040] |" in text
    assert "Below a baseline on amibr (see above)." in text
    alone = figures(spec, measured=evaluated(spec, differences=(ahead, other)))
    assert "Below a baseline" not in card(spec, [CONFIG], alone, RECORD)


def test_the_command_and_a_note_of_several_sets_are_said_once(spec):
    (first,) = evaluated(spec).sets
    sets = [
        dataclasses.replace(first, notes=("a sample", "few groups")),
        dataclasses.replace(first, name="other", notes=("a sample",)),
    ]
    text = card(spec, [CONFIG], figures(spec, measured=evaluated(spec, sets=tuple(sets))), RECORD)
    assert "\n- amibr, other: a sample\n- amibr: few groups\n" in text
    assert text.count("python -m training.evaluate all") == 1


def test_a_difference_is_in_the_section_of_its_protocol(spec):
    whole = evaluated(spec)
    (auroc,) = whole.differences
    dice = dataclasses.replace(auroc, verb="dense", metric="dice", value=0.047, interval=None)
    maps = result(set="amibr", verb="dense", metric="dice", value=0.7)
    measured = dataclasses.replace(whole, results=(*whole.results, maps), differences=(auroc, dice))
    text = card(spec, [CONFIG], figures(spec, measured=measured), RECORD)
    probe, _, dense = text.partition("### Feature maps")
    assert ("+0.159" in probe, "+0.159" in dense) == (True, False)
    assert "| amibr | Dice | +0.047 |" in dense
    assert "Dice" not in probe.partition("## Measured")[2]


def test_crops_and_averages_are_described(spec):
    fields = [[0.05, 1.0], [1.0, 1.0], [0.03, 0.5]]
    training = {"runs": 3, "steps": [1000, 1000, 900], "fields": fields, "cpu_seconds": 3600}
    text = card(spec, [CONFIG], figures(spec, training=training), RECORD)
    assert "one field of 3% to 50%, in other runs of 5% to 100% of its area" in text
    assert "plain average of 3 such runs" in text
    assert "60 core-minutes" in text


def test_the_deviation_over_training_runs_is_given_where_there_are_several(spec):
    text = card(spec, [CONFIG], figures(spec), RECORD)
    assert "`three runs`: pathencoder-tiny; readout `pool`, 1280 values, mean of 3" in text
    assert "AUROC over the 3 training runs of `three runs`: amibr 0.011." in text
    assert "intervals do not include the variation between training seeds" in text


def test_changed_tiles_are_shown_where_they_were_measured(spec):
    assert "Another stain" not in card(spec, [CONFIG], figures(spec), RECORD)
    shifted = [
        result(set="amibr", verb="robustness", metric=metric, condition=condition, value=value)
        for metric, condition, value in (
            ("auroc", "unchanged", 0.7),
            ("auroc", "hue", 0.65),
            ("centred_cosine", "hue", 0.987),
            ("effective_rank", "", 80.0),
        )
    ]
    whole = evaluated(spec)
    measured = dataclasses.replace(whole, results=(*whole.results, *shifted))
    text = card(spec, [CONFIG], figures(spec, measured=measured), RECORD)
    assert "| unchanged | 0.700 / - / - |" in text
    assert "| hue | 0.650 / - / 0.987 |" in text
    assert "| effective rank | 80 |" in text


def test_figures_of_another_form_make_no_card(spec):
    for other in ({"measured": {"sets": {}}}, {"report": {"sets": {}}}):
        values = {**figures(spec), "report": None, **other}
        with pytest.raises(ConfigError, match=r"no evaluation .* training\.evaluate all"):
            card(spec, [CONFIG], values, RECORD)


ASSERTED = {
    "start": ("Start: theirs (MIT).", "Start: random weights."),
    "slides": ("no slide twice in a batch", "slides drawn with probability ~ tiles^0.5."),
    "hardware": ("one process; Xeon; bfloat16", "hardware: not recorded"),
    "scale": ("stated for 9 of 907 tiles, 0.25 to 1", "Micrometres per pixel: not recorded"),
    "processes": ("the first of 8 processes", "one process"),
}
CHANGES = {
    "start": {"start": KNOWN},
    "slides": {"slides": 64},
    "hardware": {"hardware": "Xeon"},
    "scale": {"contents": Contents({}, {"he": Count(907, 13)}, Scale(9, 0.25, 0.5, 1.0))},
    "processes": {"processes": 8},
}


@pytest.mark.parametrize("what", ASSERTED)
def test_a_statement_is_made_only_where_the_record_has_it(spec, what):
    there, absent = ASSERTED[what]
    without = card(spec, [CONFIG], figures(spec), RECORD)
    having = card(spec, [CONFIG], figures(spec), recorded(**CHANGES[what]))
    assert there in having
    assert there not in without
    assert absent in without


def test_nothing_is_asserted_of_an_encoder_of_which_nothing_is_known(spec):
    other = dataclasses.replace(spec, name="other", mpp=None, embedding="pool", stains=("he",))
    mine = SetRow(name="mine", title="mine", stain="he", groups="slide", sha256="c" * 64)
    measured = report(
        encoders=(of_spec(other), encoder("random", "random", None)),
        sets=(mine,),
        results=(result(set="mine", value=0.7),),
    )
    bare = figures(spec, measured=measured, training={"cpu_seconds": 60})
    text = card(other, [CONFIG], bare, RECORD)
    for constant in (
        "ImageNet",
        "Stain jitter",
        "moving average",
        "amibr",
        "crc_polyp5",
        "a sample of",
        "Means over sets",
        "Standard deviation",
        "minus a baseline",
        "mpp=",
        "create_model",
        "Statements by",
        "IHC",
        "test part",
        "CPU core",
    ):
        assert constant not in text, constant
    assert "Overlap with the training images was not checked." in text
    assert 'load_encoder("other")' in text
    assert "| P | 907 | 13 |" in text


def test_jitter_and_averages_are_those_of_every_run(spec):
    colour = {"he_scale": 0.15, "he_shift": 0.05, "od_scale": 0.06, "od_shift": 0.02}
    one = {**CONFIG, "method": {"name": "simclr", "colour": colour, "average": 0.99}}
    two = {**one, "method": {**one["method"], "colour": {**colour, "he_scale": 0.3}}}
    text = card(spec, [one, two], figures(spec), RECORD)
    assert "for H&E (scale 0.15 or 0.3, shift 0.05)" in text
    assert "moving average (decay 0.99)" in text


def test_what_maintainers_state_is_said_to_be_theirs(spec):
    by = recorded(written_by="maintainers", statements=("No test tile was trained on.",))
    text = card(spec, [CONFIG], figures(spec), by)
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
