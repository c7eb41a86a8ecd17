"""The ViTs of the recipes start with gradients of an ordinary size and embeddings that differ."""

from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from skimage import data
from torch.nn import functional as F

from training import config, methods
from training.backbones import make
from training.data.loader import TileBatch

pytestmark = pytest.mark.full

RECIPES = sorted((ROOT / "training/recipes").glob("dino_*gpu.yaml"))
RECIPES += [ROOT / "training/recipes/dino_large_cluster.yaml"]
_SMALL = ["method.global_crops.px=32", "method.local_crops.px=16", "method.local_crops.count=2"]
_SMALL += ["data.canvas=64", "method.prototypes=64"]


def narrow(recipe: Path):
    """The recipe with a narrow network of its depth: tokens and LayerScale are the recipe's."""
    cfg = config.load(recipe, ["data.root=tiles", *_SMALL])
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 4}
    args = {**cfg.backbone.args, **size}
    return cfg.model_copy(update={"backbone": cfg.backbone.model_copy(update={"args": args})})


def pictures():
    """uint8 [16, 3, 64, 64], four cuts of four pictures."""
    cuts = [
        getattr(data, name)()[y : y + 64, x : x + 64]
        for name in ("immunohistochemistry", "astronaut", "rocket", "coffee")
        for y in (100, 200)
        for x in (100, 200)
    ]
    tiles = torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2)
    return TileBatch(tiles, torch.zeros(16, dtype=torch.long), torch.arange(16))


def started(cfg):
    """The norm of the first gradient, and the mean cosine of the embeddings of other tiles."""
    torch.manual_seed(0)
    settings, rng = cfg.backbone, torch.Generator().manual_seed(0)
    plan = methods.Plan(
        backbone=lambda: make.make_backbone(settings),
        width=48,
        steps=100,
        batch=256,
        tiles=5000,
        mean=settings.mean,
        std=settings.std,
        generator=rng,
    )
    method = methods.build(cfg.method, plan).train()
    views = method.views(pictures())
    loss, _ = method.loss(views, 50)
    loss.backward()
    norm = torch.nn.utils.get_total_norm(
        [p.grad for p in method.parameters() if p.grad is not None]
    )
    with torch.no_grad():
        rows = F.normalize(method.encoder()(views[0]), dim=1)
    return float(norm), float(((rows @ rows.T).sum() - 16) / (16 * 15))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_vit_starts_with_ordinary_gradients_and_different_embeddings(recipe):
    norm, cosine = started(narrow(recipe))
    assert norm < 100
    assert cosine < 0.999


def test_with_the_tokens_of_timm_the_first_gradient_is_large(monkeypatch):
    """What the token's standard deviation is for."""
    monkeypatch.setattr(make, "_TOKEN_STD", 1e-6)
    cfg = narrow(RECIPES[0])
    args = {**cfg.backbone.args, "init_values": 1e-5}
    backbone = cfg.backbone.model_copy(update={"args": args})
    norm, _ = started(cfg.model_copy(update={"backbone": backbone}))
    assert norm > 1000


def test_the_tokens_of_starting_weights_stay(tmp_path):
    from safetensors.torch import save_file

    settings = narrow(RECIPES[0]).backbone
    shapes = make.make_backbone(settings).state_dict()
    state = {k: torch.full(v.shape, 0.5) for k, v in shapes.items()}
    save_file(state, tmp_path / "w.safetensors")
    started_with = settings.model_copy(update={"start": str(tmp_path / "w.safetensors")})
    assert (make.make_backbone(started_with).cls_token == 0.5).all()
    assert 0.01 < float(make.make_backbone(settings).reg_token.detach().std()) < 0.03
