"""`python -m training.plan --probe`: what is measured here goes into the plan."""

import re

import pytest
from click.testing import CliRunner
from small_archive import packed, small_manifest

from training.archive import probe
from training.archive.probe import Probe
from training.plan import CROPS, MODELS, PRICES, Plan, gpu_hours, main, probe_lines, read_prices

pytestmark = pytest.mark.full


def test_a_probe_measures_the_shards_and_puts_their_tiles_in(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_SECONDS", 0.01)
    monkeypatch.setattr(probe, "step_rate", lambda: ("abacus", 1e12))
    rows = small_manifest(tmp_path, 2)
    packed(rows, tmp_path)
    given = ["--manifest", str(tmp_path / "m.parquet"), "--probe", str(tmp_path / "shards")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert re.search(r"tiles +0 million  slides x 6\n", done.output)
    assert re.search(r"reading here +[\d,]+ tiles/s  a core", done.output)
    assert "core-days for 2 slides" in done.output
    assert "abacus: " in done.output
    done = CliRunner().invoke(main, ["--probe", str(tmp_path)])
    assert (done.exit_code, "pack some slides first" in done.output) == (1, True)


def test_a_probe_in_words():
    found = Probe(17.0, 500, 2000.0, None, "abacus", 1e12)
    gpu = read_prices(PRICES)["gpu"]["h100"]
    reading, packing, training = probe_lines(found, Plan(), MODELS["vit_large"], gpu)
    assert "0.12 a GPU" in reading
    assert "no slide of the manifest lies here" in packing
    hours = gpu_hours(MODELS["vit_large"], CROPS, Plan().samples, gpu) * 989 * 0.3
    assert f"abacus: {hours:,.0f} hours" in training
