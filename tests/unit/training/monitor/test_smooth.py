"""The line for people shows a mean of the loss, said as such; the log keeps the loss itself."""

import logging
import math

import pytest
from small_runs import settings, write_tiles

from training.monitor.log import read_log
from training.monitor.smooth import Smoothed
from training.pretrain import train

pytestmark = pytest.mark.full


def test_the_mean_is_exponential_and_has_no_start():
    values = [4.0, 2.0, 3.0, math.nan, 1.0]
    mean = Smoothed("loss")
    found = [mean.add(step, v) for step, v in enumerate(values)]
    assert found[0] == pytest.approx(4.0)
    weights = [0.9**3, 0.9**2, 0.9, 1.0]
    finite = [v for v in values if math.isfinite(v)]
    expected = sum(w * v for w, v in zip(weights, finite, strict=True)) / sum(weights)
    assert found[-1] == pytest.approx(expected)
    assert found[3] == found[2]
    assert math.isnan(Smoothed("loss").add(0, math.inf))


def test_a_resumed_mean_goes_on_and_counts_no_step_twice():
    lines = [{"kind": "train", "step": s, "loss": float(s)} for s in (1, 2, 3, 4)]
    lines += [{"kind": "knn", "step": 2, "loss": 99.0}, {"kind": "train", "step": 5, "loss": None}]
    whole, resumed = Smoothed("loss"), Smoothed("loss", lines)
    expected = [whole.add(s, float(s)) for s in (1, 2, 3)][-1]
    assert resumed.add(3, 3.0) == pytest.approx(expected)


def test_a_run_shows_the_mean_and_logs_the_loss(tmp_path, caplog):
    (tmp_path / "tiles").mkdir()
    caplog.set_level(logging.INFO)
    run = train(settings(write_tiles(tmp_path / "tiles"), tmp_path / "run"))
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    mean = Smoothed("loss")
    for line in lines:
        assert line["temperature"] == 0.2
        shown = mean.add(line["step"], line["loss"])
        assert f"loss {line['loss']:.3g} (exponential mean {shown:.3g})" in caplog.text
