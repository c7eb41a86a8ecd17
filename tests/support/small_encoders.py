"""Encoders of a few thousand parameters with random weights, and pictures, for tests."""

import functools
import json

import numpy as np
import torch
from safetensors.torch import save_file

from pathencoder import network
from pathencoder.encoder import Encoder
from pathencoder.spec import EncoderSpec

SIZE = 64
COMMON = {"input_size": SIZE, "mean": (0.7, 0.6, 0.7), "std": (0.2, 0.25, 0.2), "mpp": 0.5}
SPECS = {
    "vit": {
        "architecture": "test_vit",
        "dim": 64,
        "width": 64,
        "model_args": {"img_size": SIZE},
        "prefix_tokens": 1,
        "embedding": "cls",
    },
    "no_cls": {
        "architecture": "test_vit2",
        "dim": 64,
        "width": 64,
        "model_args": {"img_size": SIZE},
        "prefix_tokens": 1,
        "embedding": "mean",
    },
    "cnn": {"architecture": "test_efficientnet", "dim": 256, "width": 256, "embedding": "pool"},
}


def spec(kind="cnn", **changes):
    return EncoderSpec(**{"name": f"small-{kind}", **COMMON, **SPECS[kind], **changes})


def encoder(kind="cnn", **changes):
    """A fresh encoder: may be changed by a test."""
    wanted = spec(kind, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = network.create(wanted, random=True)
        # random networks shrink their signal: statistics as after training keep rows apart
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.01)
    return Encoder(net, wanted)


shared = functools.cache(encoder)


def in_timm_format(folder, seed):
    """A folder with the files of timm alone, which state no sha256 of the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = network.create(spec("vit"), random=True).state_dict()
    folder.mkdir(exist_ok=True)
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "num_features": 64,
        "model_args": {"img_size": SIZE},
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder


def picture(seed=0, height=SIZE, width=SIZE):
    """uint8 [H, W, 3]: noise, coarse enough for JPEG."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8
    )
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])
