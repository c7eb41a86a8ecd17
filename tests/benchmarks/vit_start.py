"""How a small ViT starts DINO: class token and LayerScale as timm has them, and other ones.

    python -m tests.benchmarks.vit_start --tiles FOLDER --knn FOLDER [FOLDER ...] [--out FOLDER]

Each arm is a sibling of training/recipes/dino_small_gpu.yaml (4 blocks of 96 channels, crops of 64
and 32 px), trained on the CPU through `training.pretrain`, some core-minutes each. Only train parts
of the labelled folders are read. Printed: the norm of the first gradient, the lowest entropy of the
teacher's targets as a share of its largest value (near 0: nearly all tiles have one target), and at
the start and the end the spread of the embeddings and their k-NN accuracy; then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training import pretrain
from training.backbones import make

RECIPE = "training/recipes/dino_small_gpu.yaml"
ARMS = {  # standard deviation of class token and registers, and init_values of LayerScale
    "timm": (1e-6, 1e-5),
    "tokens": (0.02, 1e-5),
    "tokens, 1e-2": (0.02, 1e-2),
    "tokens, 0.1": (0.02, 0.1),
}
_ARGS = (
    "{{dynamic_img_size: true, reg_tokens: 4, no_embed_class: true, drop_path_rate: 0.1,"
    " init_values: {}, img_size: 64, patch_size: 16, embed_dim: 96, depth: 4, num_heads: 3}}"
)


def train(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run; its row of the table."""
    make._TOKEN_STD, init = ARMS[arm]
    out = options.out / f"{arm.replace(', ', '_')}-{seed}"
    knn = ", ".join(str(folder) for folder in options.knn)
    settings = [
        *(f"data.root={options.tiles}", "data.canvas=128", "data.batch=64", f"seed={seed}"),
        *(f"backbone.args={_ARGS.format(init)}", "backbone.architecture=vit_tiny_patch16_224"),
        *("backbone.input_size=64", "method.global_crops.px=64", "method.local_crops.px=32"),
        *("method.local_crops.count=4", f"steps={options.steps}", "optim.warmup=40"),
        *("minutes=null", "optim.precision=fp32", f"out={out}", f"run.knn_sets=[{knn}]"),
        *("run.loader_processes=0", "run.compile=false", "run.keep_mb=400", "run.log_every=1"),
    ]
    assert pretrain.main([RECIPE, *settings]) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "grad_norm" in line]
    measured = [line for line in lines if "rankme" in line and "grad_norm" not in line]
    row = {"arm": arm, "seed": seed, "first_gradient": steps[0]["grad_norm"]}
    row["lowest_entropy"] = min(line["teacher_entropy"] for line in steps)
    for name, line in (("start", measured[0]), ("end", measured[-1])):
        row[f"{name}_std"] = line["feature_std"]
        row |= {f"{name}_{k}": v for k, v in line.items() if k.startswith("knn_")}
    return row


def main() -> None:
    """Train every arm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--knn", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/vit_start"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    rows = [train(arm, seed, options) for seed in options.seeds for arm in ARMS]
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
