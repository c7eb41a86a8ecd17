"""Small encoders to put on a loopback Hub, and rows of the catalogue for them."""

import dataclasses
import io
import json

import numpy as np
import torch
from safetensors.torch import save

import pathencoder
from pathencoder import network
from pathencoder.pretrained import catalogue, folder, locate
from pathencoder.spec import EncoderSpec

ARGS = dict(img_size=32, embed_dim=48, depth=2, num_heads=3)
SPEC = EncoderSpec(
    name="small",
    architecture="vit_tiny_patch16_224",
    model_args=ARGS,
    dim=48,
    width=48,
    input_size=32,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    prefix_tokens=1,
    licence="MIT",
)
TIMM_CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": ARGS,
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 1.0,
    },
}


def state(seed=0, spec=SPEC):
    torch.manual_seed(seed)
    return network.create(spec, random=True).state_dict()


def ours(tmp_path, seed=0, **changes):
    """The files of a repository in our format."""
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    net = network.create(SPEC)
    net.load_state_dict(state(seed), assign=True)
    encoder = pathencoder.Encoder(net, SPEC)
    with torch.inference_mode():
        vector = encoder(encoder.transform(tile)[None]).embedding[0].numpy()
    place = tmp_path / f"written{seed}"
    folder.write_folder(
        place,
        SPEC,
        state(seed),
        reference_tile=tile,
        reference_embedding=vector,
        card="---\nlicense: mit\n---\n\n# small\n",
        licence="MIT",
    )
    files = {p.name: p.read_bytes() for p in place.iterdir()}
    if changes:
        config = json.loads(files["config.json"])
        config["pathencoder"].update(changes)
        files["config.json"] = json.dumps(config).encode()
    return files


def timms(weights=None, config=TIMM_CONFIG):
    return {
        "config.json": json.dumps(config).encode(),
        **(weights or {"model.safetensors": save(state())}),
    }


def pickled(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def row(monkeypatch, **changes):
    """Put one more public encoder into the catalogue for a test."""
    spec = dataclasses.replace(
        SPEC, **{"repo": "owner/small", "files": ("pytorch_model.bin",), **changes}
    )
    monkeypatch.setattr(catalogue, "_public", lambda: {spec.name: spec})
    monkeypatch.setattr(locate, "_by_repository", lambda: {spec.repo.lower(): spec})
    return spec
