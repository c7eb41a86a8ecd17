"""Survival by slide: the partial likelihood and the concordance index, and a head of risks."""

import itertools

import numpy as np
import pytest
import small_bags
import torch
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.errors import ConfigError
from pathencoder.heads.slide.cox import Concordance, cox_loss, partial_likelihood

pytestmark = pytest.mark.full


def sample(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=count), rng.integers(1, 12, count).astype(float), rng.random(count) < 0.6


def test_the_loss_is_the_partial_likelihood_written_out():
    risks, times, events = sample()
    terms = [
        risks[i] - np.log(np.exp(risks[times >= times[i]]).sum())
        for i in range(len(risks))
        if events[i]
    ]
    tensors = torch.tensor(risks), torch.tensor(times), torch.tensor(events)
    assert float(cox_loss(*tensors)) == pytest.approx(-np.mean(terms))
    assert partial_likelihood(risks, times, events) == pytest.approx(-np.mean(terms))
    assert np.isnan(partial_likelihood(risks, times, np.zeros(len(risks), bool)))


def test_the_concordance_counts_pairs():
    risks, times, events = sample()
    risks = np.round(risks, 1)  # some are equal
    folds = np.arange(len(risks)) % 2

    def written_out(rows, same_fold):
        right = total = 0.0
        for i, j in itertools.product(rows, rows):
            before = times[i] < times[j] or (times[i] == times[j] and not events[j])
            if events[i] and before and (not same_fold or folds[i] == folds[j]):
                total += 1
                right += (risks[i] > risks[j]) + 0.5 * (risks[i] == risks[j])
        return right / total

    rows = np.array([0, 3, 3, 5, 8, 9, 11, 20, 21, 21])
    assert Concordance(risks, times, events)(rows) == pytest.approx(written_out(rows, False))
    index = Concordance(risks, times, events, folds)
    assert index(rows) == pytest.approx(written_out(rows, True))
    order = Concordance(-times, times, np.ones(len(times), bool))
    with pytest.raises(ConfigError, match="no pair"):
        order(np.array([0]))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Slides with more tumour tiles die earlier."""
    made = tmp_path_factory.mktemp("survival")
    rng = np.random.default_rng(0)
    lines = ["slide,patient,months,dead,split"]
    for n in range(30):
        rows = rng.normal(size=(20, small_bags.DIM)).astype(np.float32)
        rows[: n % 10, 0] += small_bags.SHIFT
        small_bags.write(made / "features", f"S{n}", rows)
        part = "test" if n < 6 else "train"
        lines.append(f"S{n},P{n // 2},{20 - 1.5 * (n % 10)},{int(n % 4 > 0)},{part}")
    small_bags.table(made, lines)
    return made


def test_slides_without_an_event_are_refused(root, tmp_path):
    lines = (root / "slides.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    small_bags.table(tmp_path, [lines[0], *(",".join([*row[:3], "0", row[4]]) for row in rows)])
    with pytest.raises(ConfigError, match="none of the 24 slides of the train part has an event"):
        pathencoder.fit(
            "slide-mean", None, tmp_path / "slides.csv", features=root / "features",
            time="months", event="dead", progress=False,
        )  # fmt: skip


def fit(root, kind="slide-mean", **options):
    small = {"hidden": 16, "learning_rate": 0.01, "seeds": 1, "epochs": 25, "device": "cpu"}
    given = {**small, "time": "months", "event": "dead", "progress": False, **options}
    return pathencoder.fit(kind, None, root / "slides.csv", features=root / "features", **given)


def test_slides_with_more_tumour_have_the_higher_risk(root):
    head = fit(root, evaluate="test")
    assert head.report.concordance.value > 0.75
    assert head.report.concordance.low is not None
    assert (head.report.count, head.report.groups, head.report.events) == (24, 12, 18)
    assert (head.held_out.part, head.held_out.count) == ("test", 6)
    found = head.predict([root / f"features/S{n}.h5" for n in (10, 15, 19)])
    assert (np.diff(found.risks) > 0).all()


@pytest.mark.parametrize("kind", ["abmil", "slide-max"])
def test_a_saved_head_gives_the_same_risks(root, kind, tmp_path):
    head = fit(root, kind, epochs=2, evaluate="test")
    head.save(tmp_path / "head")
    loaded = pathencoder.load_head(tmp_path / "head")
    found, again = (one.predict(root / "features") for one in (head, loaded))
    assert np.isfinite(found.risks).all()
    np.testing.assert_array_equal(again.risks, found.risks)
    assert (loaded.report, loaded.held_out) == (head.report, head.held_out)
    assert "concordance  0." in (tmp_path / "head/README.md").read_text()


def test_bad_times_are_listed(root, tmp_path):
    lines = [
        "slide,patient,months,dead", "S0,P0,0,1", "S1,P1,x,1", "S2,P2,3,maybe", "S3,P3,4,0",
    ]  # fmt: skip
    table = small_bags.table(tmp_path, lines)
    with pytest.raises(ConfigError) as caught:
        pathencoder.fit(
            "abmil", None, table, features=root / "features", time="months", event="dead"
        )
    for words in ("the time is '0'", "the time is 'x'", "the event is 'maybe'", "3 problems"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"event": None}, "belong together"),
        ({"time": "years"}, "no column 'years'"),
        ({"calibrate": False}, "calibrate=False: the head 'slide-mean' does not take it"),
    ],
)
def test_options_that_do_not_fit(root, options, words):
    with pytest.raises(ConfigError, match=words):
        fit(root, **options)
