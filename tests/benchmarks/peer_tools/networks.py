"""The network that all tools run, as a plain torch module, and what a tool says at its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, MPP, BATCH = 224, 0.5, 32


class Asked(NamedTuple):
    """The command line: SLIDE OUT, and a folder with a network, or "default"."""

    slide: Path
    out: Path
    folder: Path | None


def asked() -> Asked:
    """The arguments of this process."""
    slide, out, network = sys.argv[1:4]
    return Asked(Path(slide), Path(out), None if network == "default" else Path(network))


def resnet18(folder: Path) -> nn.Module:
    """timm's ResNet-18 with the weights of a folder, as timm makes it."""
    import timm

    weights = str(folder / "model.safetensors")
    return timm.create_model("resnet18", num_classes=0, checkpoint_path=weights).eval()


def normalised(images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] as the network takes it."""
    from torchvision.transforms.v2 import functional

    scaled = images.permute(0, 3, 1, 2).float() / 255
    return functional.normalize(scaled, MEAN, STD)


def transform():
    """Of one uint8 image [H, W, 3]: torchvision's steps, as the tools' own encoders have them."""
    import torch
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose(steps)


def report(rows: np.ndarray) -> None:
    """Print the last line, which the benchmark reads."""
    rows = np.asarray(rows, dtype=np.float32)
    print(json.dumps({"tiles": len(rows), "mean": rows.mean(axis=0).tolist()}), flush=True)
