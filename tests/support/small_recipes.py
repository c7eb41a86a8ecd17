"""Small siblings of recipes: key=value settings laid over the file, and tiles of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from training import config

# Two blocks and crops of 32 and 16 px instead of the recipe's.
VIT = (
    "backbone.args={dynamic_img_size: true, reg_tokens: 4, no_embed_class: true,"
    " init_values: 0.1, drop_path_rate: 0.1, img_size: 32, patch_size: 8, depth: 2,"
    " embed_dim: 32, num_heads: 2}"
)
_HEADS = {"hidden": 16, "out": 8, "bottleneck": 8, "prototypes": 16}
_SIDES = (32, 16)  # of large and small crops, px


def write_pictures(root: Path, side: int = 96) -> Path:
    """Tiles cut from scikit-image's pictures; each picture is a folder ("slide") of six."""
    from skimage import data

    for name in ("immunohistochemistry", "astronaut", "rocket", "coffee"):
        picture = getattr(data, name)()
        (root / name).mkdir(parents=True)
        for i in range(6):
            y, x = side * (i // 3), side * (i % 3)
            tile = np.ascontiguousarray(picture[y : y + side, x : x + side])
            Image.fromarray(tile).save(root / name / f"{i}.png")
    return root


def sibling(recipe: Path, tiles: Path, out: Path) -> list[str]:
    """The key=value settings that make a recipe small: its network, crops, heads and batch.

    The method, its terms, the optimiser, and how processes work together stay the recipe's.
    """
    cfg = config.load(recipe, [f"data.root={tiles}", f"run.out={out}"])
    if cfg.method.own_network:
        return [*_everywhere(tiles, out, batch=4), "data.canvas=96", "method.crop=80"]
    fields = type(cfg.method).model_fields
    heads = [f"method.{name}={n}" for name, n in _HEADS.items() if name in fields]
    sides = [
        f"method.{name}.px={_SIDES[name.startswith('local')]}" for name in cfg.method.crop_sizes()
    ]
    counts = ["method.local_crops.count=2"] if "method.local_crops.px=16" in sides else []
    return [
        *_everywhere(tiles, out, batch=8),
        *(*heads, *sides, *counts, *_network(cfg)),
        "data.canvas=64",
    ]


def is_vit(cfg: config.Config) -> bool:
    """Whether the recipe's network can be sharded."""
    return not cfg.method.own_network and cfg.backbone.architecture.startswith("vit")


def _network(cfg: config.Config) -> list[str]:
    if is_vit(cfg):
        return [VIT, "backbone.input_size=32"]
    rest = ["backbone.args={}", "backbone.start=null", "backbone.real_statistics=false"]
    read = ["backbone.embedding=pool", "backbone.input_size=64"]
    return ["backbone.architecture=test_resnet", *rest, *read]


def _everywhere(tiles: Path, out: Path, *, batch: int) -> list[str]:
    return [
        *(f"data.root={tiles}", "data.licences=[]", "data.stain_weights={}", f"data.batch={batch}"),
        *(f"run.out={out}", "run.knn_sets=[]", "run.log_every=1", "run.checkpoint_every=2"),
        *("run.loaders=1", "run.loader_processes=0", "run.threads=1", "run.compile=false"),
        *("run.minutes=null", "optim.steps=4", "optim.warmup=1"),
    ]
