"""The plan's arithmetic, its table of prices, and published runs."""

import pytest
from click.testing import CliRunner

from pathencoder.errors import ConfigError
from training.plan import (
    MODELS,
    PRICES,
    RUNS,
    Crops,
    Model,
    Plan,
    flops_of_sample,
    gpu_hours,
    lines_of,
    main,
    read_prices,
)


def test_operations_of_a_sample_by_hand():
    model = Model(1e6, depth=2, width=10, patch=16, drop_path=0.0)
    crops = Crops(large=32, small=16, locals=1)  # 5 and 2 tokens
    five, two = 2 * 5 * 1e6 + 4 * 25 * 20, 2 * 2 * 1e6 + 4 * 4 * 20
    assert flops_of_sample(model, crops) == 3 * (2 * five + two) + 2 * five
    half = Model(1e6, 2, 10, 16, drop_path=0.5)
    assert flops_of_sample(half, crops) == 1.5 * (2 * five + two) + 2 * five


def test_published_runs_are_within_30_percent():
    gpus = read_prices(PRICES)["gpu"]
    known = [run for run in RUNS if run.hours]
    assert len(known) >= 3
    for run in known:
        ratio = gpu_hours(run.model, run.crops, run.samples, gpus[run.gpu]) / run.hours
        assert 0.7 < ratio < 1.3, (run.name, ratio)


def test_the_plan_of_an_archive():
    lines = lines_of(Plan(), MODELS["vit_large"], "h100", read_prices(PRICES))
    text = "\n".join(lines)
    assert "125.4 TB" in text
    assert "264 million" in text
    assert "4.49 TB" in text
    assert "2026" in lines[-1]


def test_a_table_of_prices_is_checked_whole(tmp_path):
    table = tmp_path / "prices.toml"
    text = PRICES.read_text()
    table.write_text(text.replace("tb_month = 23.0", "tb_month = 'much'").replace("date", "day"))
    with pytest.raises(ConfigError) as error:
        read_prices(table)
    assert "date is missing" in str(error.value)
    assert "storage.s3.tb_month" in str(error.value)
    table.write_text("date = ")
    with pytest.raises(ConfigError, match="no table of prices"):
        read_prices(table)


def test_the_command():
    done = CliRunner().invoke(main, ["--slides", "1000", "--model", "vit_small", "--gpus", "8"])
    assert done.exit_code == 0
    assert "1,000" in done.output
    assert "OpenMidnight" in CliRunner().invoke(main, ["--check"]).output
    assert CliRunner().invoke(main, ["--gpu", "abacus"]).exit_code == 1
