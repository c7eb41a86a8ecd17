"""Every recipe: read, built on the meta device, and one real step with a small network."""

import functools
import logging
import math

import pytest
import torch
import yaml
from paths import ROOT
from small_runs import values, write_tiles

from pathencoder.errors import ChecksumError, ConfigError
from training import config, methods
from training.backbones import make
from training.pretrain import train
from training.trainer import preflight

pytestmark = pytest.mark.full
FOLDER = ROOT / "training/recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
BUNDLED = sorted(p for p in (FOLDER / "bundled").glob("*.yaml") if not p.stem.startswith("nuclei"))
# millions of parameters, with 4 registers
SIZES = {
    "vit_small_patch16_224": 21.6,
    "vit_base_patch16_224": 85.7,
    "vit_large_patch16_224": 303.2,
    "mobilenetv2_100": 2.2,
}
SMALL_VIT = {
    "dynamic_img_size": True,
    "reg_tokens": 4,
    "no_embed_class": True,
    "init_values": 1e-5,
    "drop_path_rate": 0.1,
}


def named(recipe):
    return f"{recipe.parent.name}-{recipe.stem}"


def load(recipe, overrides=()):
    return config.load(recipe, ["data.root=tiles", *overrides])


@pytest.mark.parametrize("recipe", [*RECIPES, *BUNDLED], ids=named)
def test_a_recipe_can_be_built_as_it_is_written(recipe):
    cfg = load(recipe)
    plain = cfg.backbone.model_copy(update={"start": None})
    with torch.device("meta"):
        width = make.output_width(make.make_backbone(plain))
        plan = methods.Plan(
            lambda: make.make_backbone(plain),
            width,
            cfg.optim.steps,
            cfg.data.batch,
            10**6,
            cfg.backbone.mean,
            cfg.backbone.std,
            torch.Generator("cpu"),
            functools.partial(make.spec_of, cfg.backbone, cfg.export),
        )
        method = methods.build(cfg.method, plan)
    millions = sum(p.numel() for p in method.backbone.parameters()) / 1e6
    if cfg.backbone.architecture in SIZES:
        assert millions == pytest.approx(SIZES[cfg.backbone.architecture], rel=0.02)
    for name, px in preflight.crop_sizes(cfg.method).items():
        assert px <= cfg.data.canvas
        preflight.refuse_network(cfg, name, px)
    assert cfg.optim.warmup < cfg.optim.steps


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_a_recipe_takes_a_step_with_its_small_sibling(recipe, tmp_path, caplog):
    (tmp_path / "tiles").mkdir()
    small = yaml.safe_load(recipe.read_text())
    small["data"] |= {
        "root": str(write_tiles(tmp_path / "tiles", slides=4, each=1)),
        "canvas": 48,
        "batch": 4,
        "licences": [],
        "stain_weights": {},
    }
    small["run"] |= {
        "out": str(tmp_path / "run"),
        "minutes": 1e-9,
        "log_every": 1,
        "knn_sets": [],
        "loaders": 1,
        "loader_processes": 0,
        "compile": False,
    }
    vit = small["backbone"].get("architecture", "").startswith("vit")
    assert not vit or small["backbone"]["args"].keys() == SMALL_VIT.keys()
    small["backbone"] = {
        "architecture": "test_vit" if vit else "test_resnet",
        "args": SMALL_VIT if vit else {},
        "input_size": 48,
    }
    method = load(recipe).method
    for crops, px in method.crop_sizes().items():
        count = min(getattr(method, crops).count, 2)
        small["method"][crops] = {
            **small["method"].get(crops, {}),
            "px": 32 if px < 112 else 48,
            "count": count,
        }
    quick = {"hidden": 16, "teachers": ["pathencoder-tiny"]}
    small["method"] |= {k: v for k, v in quick.items() if k in type(method).model_fields}
    with caplog.at_level(logging.WARNING):
        run = train(config.check(small))
    line = yaml.safe_load((run / "log.jsonl").read_text().splitlines()[0])
    assert math.isfinite(line["loss"])
    assert math.isfinite(line["grad_norm"])
    assert (run / "export/model.safetensors").is_file()


def test_a_crop_that_does_not_fit_is_refused(tmp_path):
    small = FOLDER / "dino_small_gpu.yaml"
    with pytest.raises(
        ConfigError, match=r"method\.global_crops: crops of 224 px do not fit data\.canvas=128"
    ):
        load(small, ["data.canvas=128"])
    cfg = load(small, ["method.local_crops.px=100"])
    with pytest.raises(
        ConfigError,
        match=r"method\.local_crops: vit_small_patch16_224 does not accept crops of 100 px",
    ):
        preflight.refuse_network(cfg, "method.local_crops", 100)
    fixed = load(small, ["backbone.architecture=deit_tiny_patch16_224", "backbone.args={}"])
    with pytest.raises(ConfigError, match="dynamic_img_size"):
        preflight.refuse_network(fixed, "method.local_crops", 96)
    (tmp_path / "tiles").mkdir()
    from training.data.corpus import open_corpus

    with pytest.raises(ConfigError, match=r"crops of 224 px are larger than the tiles \(48 px\)"):
        preflight.check(cfg, open_corpus(write_tiles(tmp_path / "tiles", slides=2, each=1)))


def test_known_starting_weights_that_are_absent_or_others_are_refused(tmp_path):
    recipe = FOLDER / "bundled/simclr_tiny_cpu.yaml"
    cfg = config.load(recipe)
    absent = cfg.backbone.model_copy(update={"start": tmp_path / "imagenet.safetensors"})
    cfg = cfg.model_copy(update={"backbone": absent})
    with pytest.raises(
        ConfigError, match=r"no file '.*imagenet\.safetensors'.*Apache-2\.0.*google-coral"
    ):
        preflight.refuse_other_start(cfg)
    (tmp_path / "imagenet.safetensors").write_bytes(b"other weights")
    with pytest.raises(ChecksumError, match="aad6954e"):
        preflight.refuse_other_start(cfg)
    unnamed = absent.model_copy(update={"start_sha256": None})
    preflight.refuse_other_start(cfg.model_copy(update={"backbone": unnamed}))


def test_an_absent_knn_set_is_a_warning(tmp_path, caplog):
    (tmp_path / "tiles").mkdir()
    write_tiles(tmp_path / "tiles")
    asked = values(tmp_path / "tiles", tmp_path / "run", knn_sets=[str(tmp_path / "nowhere")])
    asked["optim"]["steps"] = 1
    with caplog.at_level(logging.WARNING):
        train(config.check(asked))
    assert f"no labels.csv in {tmp_path / 'nowhere'}" in caplog.text
