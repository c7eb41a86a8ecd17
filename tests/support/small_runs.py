"""Very small pretraining runs: noisy tiles of six slides, timm's smallest networks."""

import copy

import numpy as np
from PIL import Image

from training import config
from training.provenance import saved_steps

METHODS = {
    "simclr": {"name": "simclr", "crop": {"px": 32}, "hidden": 16, "out": 8},
    "dino": {
        "name": "dino",
        "global_crops": {"px": 32},
        "local_crops": {"count": 2, "px": 16},
        "hidden": 16,
        "bottleneck": 8,
        "prototypes": 16,
    },
    "distill": {"name": "distill", "teachers": ["pathencoder-tiny"], "crop": {"px": 32}},
}


def write_tiles(root, slides=6, each=4, side=48):
    """Folders ("slides") of noisy tiles."""
    rng = np.random.default_rng(0)
    for slide in range(slides):
        (root / f"s{slide}").mkdir()
        for i in range(each):
            noise = rng.integers(0, 255, (side, side, 3), dtype=np.uint8) // 2 + 20 * slide
            Image.fromarray(noise.astype(np.uint8)).save(root / f"s{slide}" / f"{i}.png")
    return root


def values(tiles, out, method="simclr", **run):
    """What a recipe would say."""
    return {
        "method": copy.deepcopy(METHODS[method]),
        "data": {"root": str(tiles), "canvas": 48, "batch": 6},
        "backbone": {"architecture": "test_resnet", "input_size": 64},
        "optim": {"steps": 6, "warmup": 2},
        "run": {"out": str(out), "checkpoint_every": 100, "log_every": 1, **run},
        "export": {"name": "small", "licence": "Apache-2.0", "stains": ["he"]},
    }


def settings(tiles, out, method="simclr", **run):
    """The same, checked."""
    return config.check(values(tiles, out, method, **run))


def state_of(run, step=None):
    """Every tensor of a checkpoint, the newest one or that of a step, by name."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    path = saved_steps.latest(run) if step is None else saved_steps.path_of(run, step)
    dcp_to_torch_save(path, run / "state.pt")
    return _flat(torch.load(run / "state.pt", weights_only=False))


def _flat(value, name=""):
    import torch

    if isinstance(value, dict):
        found = (_flat(inner, f"{name}/{key}").items() for key, inner in value.items())
        return {k: v for part in found for k, v in part}
    return {name: value} if torch.is_tensor(value) else {}
