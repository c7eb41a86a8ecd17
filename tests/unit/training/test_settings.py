"""The command line explains every setting, checks a config, and lists every mistake at once."""

from runpy import run_path

import pytest
import yaml
from paths import ROOT
from small_runs import values, write_tiles

from pathencoder.errors import ConfigError
from training import config, pretrain
from training.config import help as settings
from training.trainer import checks

pytestmark = pytest.mark.full


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiles").mkdir()
    asked = values(write_tiles(tmp_path / "tiles"), tmp_path / "run", "dino")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(asked))
    return tmp_path / "recipe.yaml"


def test_every_setting_has_a_meaning():
    without = [s.name for _, _, found in settings.sections() for s in found if not s.meaning]
    assert without == []


def test_help_lists_every_setting_with_default_and_bounds(capsys):
    assert pretrain.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "--check" in shown
    assert "optim.lr  [0.0003, >= 0, <= 10]\n      Of the backbone; 0 is a control run" in shown
    assert "data.root  [required]" in shown
    assert "optim.precision  [auto, one of auto, fp32, bf16]" in shown
    assert "method.teachers  [required, length >= 1]" in shown
    # inside another setting, the default is the outer one's
    assert "method.local_crops.count  [4, >= 0, <= 64]" in shown
    for section, kind in config.Config.model_fields.items():
        if section not in ("method", "seed", "start_from"):
            for name in kind.annotation.model_fields:
                assert f"{section}.{name}  [" in shown


def test_wrong_usage_is_status_two(capsys):
    assert pretrain.main([]) == pretrain.main(["--chekc", "x.yaml"]) == 2
    assert "--help" in capsys.readouterr().err


def test_every_mistake_is_listed_at_once(recipe):
    with pytest.raises(ConfigError) as error:
        config.load(
            recipe, ["fast", "optim.stpes=3", "data.batch=1", "method.name=dinoo", "seed=["]
        )
    for part in (
        "'fast' is not key=value",
        "optim.stpes: no such setting; nearest: steps",
        "data.batch: ",
        "method.name='dinoo'; nearest: dino",
        "'seed=[': the value is not readable",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["- a\n", "method: simclr\n", "{", "method: {name: [1]}\n"])
def test_a_recipe_that_is_no_config_is_an_error_with_words(tmp_path, text, caplog):
    (tmp_path / "r.yaml").write_text(text)
    assert pretrain.main([str(tmp_path / "r.yaml")]) == 1
    assert "error: " in caplog.text


def test_check_prints_what_differs_and_writes_nothing(recipe, capsys):
    before = sorted(recipe.parent.iterdir())
    assert pretrain.main(["--check", str(recipe), "optim.lr=1e-4"]) == 0
    shown = capsys.readouterr().out
    assert "optim.lr=0.0001\n" in shown
    assert "method.local_crops.count=2\n" in shown
    assert "run.threads" not in shown  # the default
    assert "ok: tiles: 24 of 6 slides" in shown
    assert shown.endswith("ready to train\n")
    assert sorted(recipe.parent.iterdir()) == before


def test_check_lists_every_problem(recipe, capsys, monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    wrong = {
        "backbone.embedding=stages:blocks.9": "blocks.9",
        "run.device=cuda:77": "run.device=cuda:77",
        "data.root=nowhere": "data.root 'nowhere'",
        "optim.accumulate=4": "cannot be divided",
        "run.out=/proc/here": "run.out=/proc/here",
        "run.wandb=mine": "run.wandb",
    }
    assert pretrain.main(["--check", str(recipe), *wrong]) == 1
    shown = capsys.readouterr().out
    for part in wrong.values():
        assert any(part in line for line in shown.splitlines() if line.startswith("error: "))
    assert f"not ready: {len(wrong)} to correct" in shown
    assert pretrain.main(["--check", str(recipe), "backbone.architecture=foo"]) == 1
    assert "not ready: 1 to correct" in capsys.readouterr().out


def test_a_run_with_a_wrong_embedding_rule_ends_before_its_first_step(recipe, caplog):
    """Before, it ended after the last one, at the export."""
    assert pretrain.main([str(recipe), "backbone.embedding=stages:blocks.9"]) == 1
    assert "blocks.9" in caplog.text
    assert not (recipe.parent / "run/log.jsonl").exists()


def test_the_page_of_settings_has_every_setting():
    page = run_path(str(ROOT / "scripts/docs_settings.py"))["page"]()
    for title, about, found in settings.sections():
        assert f"\n## {title}\n\n{about}\n" in page
        for setting in found:
            line = next(x for x in page.splitlines() if x.startswith(f"| `{setting.name}` |"))
            assert line.count(" | ") == 3
    assert "| `optim.lr` | `0.0003` | >= 0, &lt;= 10 | Of the backbone;" in page
    built = "scripts/docs_settings.py docs/pretraining-settings.md"
    assert built in (ROOT / "Makefile").read_text()
