"""Configs: checked whole, with the nearest name; every recipe parses."""

from pathlib import Path

import pytest
from paths import ROOT

from pathencoder.errors import ConfigError
from training import config

pytestmark = pytest.mark.full
RECIPES = sorted(
    p for p in (ROOT / "training/recipes").glob("*.yaml") if not p.stem.startswith("nuclei")
)
SMALL = {
    "method": {"name": "simclr"},
    "data": {"root": "tiles"},
    "optim": {"steps": 10},
    "run": {"out": "runs/x"},
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_whole(recipe):
    assert config.load(recipe).optim.steps > 0


def test_overrides_reach_every_depth():
    cfg = config.load(
        RECIPES[0],
        [
            "minutes=5",
            "optim.lr=1e-4",
            "method.colour.grey=0.5",
            "data.licences=[]",
            "backbone.start=null",
        ],
    )
    assert (cfg.run.minutes, cfg.optim.lr, cfg.method.colour.grey) == (5.0, 1e-4, 0.5)
    assert (cfg.data.licences, cfg.backbone.start) == ((), None)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"optim\.stpes: no such setting; nearest: steps"):
        config.check({**SMALL, "optim": {"steps": 1, "stpes": 2}})
    with pytest.raises(
        ConfigError, match=r"method\.temprature: no such setting; nearest: temperature"
    ):
        config.check({**SMALL, "method": {"name": "simclr", "temprature": 0.1}})
    with pytest.raises(ConfigError, match=r"method\.patches\.wieght: .*nearest: weight"):
        config.check({**SMALL, "method": {"name": "dino", "patches": {"wieght": 2}}})


def test_an_unknown_stain_class_is_refused():
    colour = {"hed_classes": ["he", "hes"]}
    with pytest.raises(ConfigError, match=r"hed_classes\.1: .*'hes' is not one of he, ihc"):
        config.check({**SMALL, "method": {"name": "simclr", "colour": colour}})


def test_all_problems_are_listed_at_once():
    with pytest.raises(ConfigError) as error:
        config.check({**SMALL, "optim": {"steps": 0, "lr": "fast"}})
    assert "optim.steps" in str(error.value)
    assert "optim.lr" in str(error.value)


def test_unknown_method_and_bad_override():
    with pytest.raises(ConfigError, match="simclr"):
        config.check({**SMALL, "method": {"name": "simclear"}})
    with pytest.raises(ConfigError, match="key=value"):
        config.load(RECIPES[0], ["fast"])
    with pytest.raises(ConfigError, match="no recipe"):
        config.load(Path("nowhere.yaml"))


def test_dump_reads_back_and_run_settings_do_not_count_as_result_changing():
    cfg = config.check(SMALL)
    dumped = config.dump(cfg)
    assert config.dump(config.check(dumped)) == dumped
    other = config.check({**SMALL, "run": {"out": "runs/y", "minutes": 3}})
    assert config.result_changing(config.dump(other)) == config.result_changing(dumped)
    faster = config.check({**SMALL, "optim": {"steps": 10, "lr": 1.0}})
    assert config.result_changing(config.dump(faster)) != config.result_changing(dumped)
