"""What is fitted on embeddings: undefined figures say why, and what is kept is not done again."""

import numpy as np
import pytest

from training.evaluation import probe
from training.evaluation.probe import Labels
from training.evaluation.sets import ProbeSet
from training.evaluation.whole import fits
from training.evaluation.whole.features import Features
from training.evaluation.whole.run import _difference

pytestmark = pytest.mark.full


def job(tmp_path, *, lacking=False, name="ours", groups=24):
    """Three classes, which the embeddings show; the last is missing from the test part."""
    rng = np.random.default_rng(0)
    group = np.arange(144) % groups
    split = np.where(group < groups * 2 // 3, "train", "test")
    y = rng.integers(0, 3, 144)
    if lacking:
        y[(split == "test") & (y == 2)] = 1
    x = (rng.normal(size=(144, 8)) + 2 * np.eye(8)[y]).astype(np.float32)
    (tmp_path / ("f" * 16)).mkdir(exist_ok=True)
    np.save(tmp_path / ("f" * 16) / "mine@0.npy", x)
    labels = Labels(
        [f"{i}.png" for i in range(144)], y, np.array([f"g{g}" for g in group]), split, list("abc")
    )
    tiles = ProbeSet("mine", tmp_path, labels, "test", choose=False)
    return fits.Job(
        name, tiles, "patient", ("f" * 64,), f"row-{name}", Features(tmp_path), "mine@0", 2
    )


def by_metric(results):
    return {(r.metric, r.condition): r for r in results}


def test_a_class_that_the_test_part_lacks_leaves_auroc_undefined_and_says_so(tmp_path):
    mine = job(tmp_path, lacking=True)
    found = by_metric(fits.probed(mine))
    assert found["auroc", ""].value is None
    assert found["auroc", ""].notes == (fits.LACKS,)
    assert found["auroc", ""].interval is None
    assert 0.5 < found["linear", ""].value <= 1
    assert found["linear", ""].interval.resampled == "patient"
    assert _difference(mine, job(tmp_path, lacking=True, name="theirs")) is None


def test_a_temperature_that_cannot_be_fitted_is_said(tmp_path):
    found = by_metric(fits.calibrated(job(tmp_path, groups=3)))
    assert found["ece", ""].value is not None
    assert found["ece", "temperature scaled"].value is None or found["temperature", ""]


def test_what_is_kept_is_not_fitted_again(tmp_path, monkeypatch):
    mine = job(tmp_path)
    first = [*fits.probed(mine), *fits.calibrated(mine)]
    monkeypatch.setattr(probe, "probe", None)
    monkeypatch.setattr(fits, "_probed", None)
    monkeypatch.setattr(fits, "_calibrated", None)
    assert [*fits.probed(mine), *fits.calibrated(mine)] == first


def test_differences_are_paired(tmp_path):
    same = _difference(job(tmp_path), job(tmp_path, name="theirs"))
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)
    assert (same.encoder, same.against) == ("ours", "theirs")
