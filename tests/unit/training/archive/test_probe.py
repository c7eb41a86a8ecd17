"""`python -m training.plan --probe`: what is measured here goes into the plan."""

import re

import pytest
from click.testing import CliRunner
from small_archive import packed, small_manifest

from training.archive import probe
from training.archive.cost import PRICES, gpu_hours, read_prices
from training.archive.probe import Probe
from training.plan import Plan, main, probe_lines

pytestmark = pytest.mark.full


def test_a_probe_measures_the_shards_and_puts_their_tiles_in(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_SECONDS", 0.01)
    monkeypatch.setattr(probe, "step_rate", lambda: ("abacus", 1e12))
    rows = small_manifest(tmp_path, 2)
    packed(rows, tmp_path)
    given = ["--manifest", str(tmp_path / "m.parquet"), "--probe", str(tmp_path / "shards")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert re.search(r"tiles +12  slides x 6\n", done.output)
    assert re.search(r"reading +[\d,]+ tiles/s  by one core", done.output)
    assert "s of one core for 2 slides" in done.output
    assert "abacus, a ViT-S: " in done.output
    done = CliRunner().invoke(main, ["--probe", str(tmp_path)])
    assert (done.exit_code, "pack some slides first" in done.output) == (1, True)


def test_a_probe_in_words():
    found = Probe(17.0, 500, 2000.0, None, "abacus", 1e12)
    gpu = read_prices(PRICES)["gpu"]["h100"]
    _, reading, packing, computing = probe_lines(found, Plan(), gpu)
    assert "0.12 cores for each GPU" in reading
    assert "no slide of the manifest lies here" in packing
    plan = Plan()
    hours = gpu_hours(plan.model, plan.crops, plan.samples, gpu) * 989 * 0.3
    assert f"would take {hours // 24:.0f} d" in computing.replace(",", "")
    assert "1.0 TFLOP/s" in computing
