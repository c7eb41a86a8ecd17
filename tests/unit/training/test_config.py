"""Configs: checked whole, with the nearest name; every recipe parses."""

from pathlib import Path

import pytest
import yaml
from paths import ROOT

from pathencoder.errors import ConfigError
from training import config

pytestmark = pytest.mark.full
FOLDER = ROOT / "training/recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
BUNDLED = sorted((FOLDER / "bundled").glob("*.yaml"))
SMALL = {
    "method": {"name": "simclr"},
    "data": {"root": "tiles"},
    "optim": {"steps": 10},
    "run": {"out": "runs/x"},
}


def load(recipe, overrides=()):
    return config.load(recipe, ["data.root=tiles", *overrides])


@pytest.mark.parametrize("recipe", [*RECIPES, *BUNDLED], ids=lambda p: p.stem)
def test_every_recipe_is_whole(recipe):
    assert load(recipe).optim.steps > 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_for_users_reads_nothing_but_their_tiles(recipe):
    """No shared data, no licence that the tiles may not have, and no claim about the result."""
    with pytest.raises(ConfigError, match=r"^data\.root is missing: give data\.root=FOLDER"):
        config.load(recipe)
    cfg = load(recipe)
    assert cfg.backbone.start in (None, "pathencoder-tiny")
    assert (cfg.run.knn_sets, cfg.data.licences, cfg.data.stain_weights) == ((), (), {})
    assert cfg.export == config.ExportSettings(name=cfg.export.name)
    assert not cfg.export.name.startswith("pathencoder")


def test_paths_of_a_recipe_are_relative_to_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "a/b/mine").mkdir(parents=True)
    (tmp_path / "a/b/mine/config.json").write_text("{}")
    recipe = tmp_path / "a/b/recipe.yaml"
    recipe.write_text(
        "{method: {name: distill, teachers: [pathencoder-tiny, mine, ./gone]}, start_from: old,"
        " data: {root: ../tiles}, backbone: {start: w.safetensors}, optim: {steps: 1},"
        " run: {out: out, knn_sets: [sets/one]}}"
    )
    monkeypatch.chdir(tmp_path / "a")
    cfg = config.load(Path("b/recipe.yaml"))
    assert (cfg.data.root, cfg.start_from) == (Path("tiles"), Path("b/old"))
    assert str(cfg.backbone.start) == "./b/w.safetensors"
    assert cfg.run.knn_sets == (Path("b/sets/one"),)
    assert [str(t) for t in cfg.method.teachers] == ["pathencoder-tiny", "./b/mine", "./b/gone"]
    assert cfg.run.out == Path("out")
    given = ["data.root=x", "backbone.start=./enc", "run.knn_sets=[y]"]
    cfg = config.load(Path("b/recipe.yaml"), given)
    assert (cfg.data.root, cfg.backbone.start) == (Path("x"), "./enc")
    assert cfg.run.knn_sets == (Path("y"),)


def test_two_starts_contradict_each_other():
    start = ["start_from=runs/a", "export.start_share=0.5"]
    with pytest.raises(ConfigError, match="leave one of the two out"):
        load(RECIPES[0], start)


def test_the_config_of_a_run_keeps_the_paths_of_its_command(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**SMALL, "data": {"root": "tiles"}}))
    assert config.load(tmp_path / "config.yaml").data.root == tmp_path / "tiles"
    (tmp_path / "data.json").write_text("{}")
    assert config.load(tmp_path / "config.yaml").data.root == Path("tiles")


def test_another_start_drops_the_checksum_of_the_recipe():
    recipe = FOLDER / "bundled/simclr_tiny_cpu.yaml"
    assert len(config.load(recipe).backbone.start_sha256) == 64
    for start in ("null", "pathencoder-tiny"):
        assert config.load(recipe, [f"backbone.start={start}"]).backbone.start_sha256 is None


def test_overrides_reach_every_depth():
    cfg = load(
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
        load(RECIPES[0], ["fast"])
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
