"""The plan's arithmetic, its table of prices, published runs, and recipes."""

import dataclasses

import pytest
from click.testing import CliRunner
from paths import ROOT

from pathencoder.errors import ConfigError
from training.archive.cost import (
    MODELS,
    PRICES,
    RUNS,
    Crops,
    Model,
    flops_of_sample,
    gpu_hours,
    published_over_formula,
    read_prices,
)
from training.plan import Plan, lines_of, main, of_recipe

RECIPES = ROOT / "training" / "recipes"


def test_operations_of_a_sample_by_hand():
    model = Model(1e6, depth=2, width=10, patch=16, drop_path=0.0)
    crops = Crops(large=32, small=16, locals=1)  # 5 and 2 tokens
    five, two = 2 * 5 * 1e6 + 4 * 25 * 20, 2 * 2 * 1e6 + 4 * 4 * 20
    assert flops_of_sample(model, crops) == 3 * (2 * five + two) + 2 * five
    half = Model(1e6, 2, 10, 16, drop_path=0.5)
    assert flops_of_sample(half, crops) == 1.5 * (2 * five + two) + 2 * five
    again = dataclasses.replace(crops, recomputed=True, globals=3)
    assert flops_of_sample(model, again) == 4 * (3 * five + two) + 3 * five


def test_published_runs_are_within_30_percent():
    gpus = read_prices(PRICES)["gpu"]
    known = [run for run in RUNS if run.hours]
    assert len(known) >= 3
    for run in known:
        ratio = gpu_hours(run.model, run.crops, run.samples, gpus[run.gpu]) / run.hours
        assert 0.7 < ratio < 1.3, (run.name, ratio)


def test_the_plan_of_an_archive():
    prices = read_prices(PRICES)
    text = "\n".join(lines_of(Plan(), "h100", prices))
    for words in ("125.4 TB", "264 million", "4.49 TB", "prices of 2026", "2 crops of 224 px"):
        assert words in text
    low, high = published_over_formula(prices)
    assert 1 < low < high < 1.4
    assert f"{low:.2f} to {high:.2f} times" in text
    del prices["gpu"]["h100"]["hour"], prices["storage"]["s3"]["egress_tb"]
    text = "\n".join(lines_of(Plan(slides=2, tiles=100), "h100", prices))
    assert "no price of an hour of NVIDIA H100" in text
    assert "no price is known to take them out" in text
    assert "more than helps" in text


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


@pytest.mark.full
def test_a_recipe_gives_network_crops_batch_and_steps():
    plan = of_recipe(Plan(), RECIPES / "dino_large_cluster.yaml")
    known = MODELS["vit_large"]
    assert dataclasses.replace(plan.model, parameters=known.parameters) == known
    assert plan.model.parameters == pytest.approx(known.parameters, rel=0.01)
    assert plan.crops == Crops(224, 96, 8, 2, recomputed=True)
    assert (plan.batch, plan.samples) == (3072, 3072 * 250_000)
    with pytest.raises(ConfigError, match=r"formula is that of DINO with a ViT"):
        of_recipe(Plan(), RECIPES / "simclr_tiny_cpu.yaml")
    given = ["--recipe", str(RECIPES / "dino_large_cluster.yaml"), "--samples", "3072e3"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert "activations computed twice" in done.output
    assert "1,000  samples / batch" in done.output


def test_the_command():
    done = CliRunner().invoke(main, ["--slides", "1000", "--model", "vit_small", "--gpus", "8"])
    assert done.exit_code == 0
    assert "1,000" in done.output
    checked = CliRunner().invoke(main, ["--check"]).output
    assert "OpenMidnight" in checked
    assert "5 of 5 runs with published hours are within 30%" in checked
    assert CliRunner().invoke(main, ["--gpu", "abacus"]).exit_code == 1
