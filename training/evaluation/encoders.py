"""The encoders that are evaluated: ours, any that `load_encoder` loads, and the baselines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.encoder import Encoder, load_encoder
from pathencoder.folding import for_inference
from training.backbones import make
from training.config import BackboneSettings, ExportSettings

IMAGENET = BackboneSettings(
    architecture="mobilenetv2_100",
    args={"pad_type": "same"},
    start="../shared/weights/mobilenetv2_100_imagenet.safetensors",
)
# The network's own output; the best readout before ours; ours, so that the effects of training and
# readout can be separated.
IMAGENET_READOUTS = (
    ("final", "pool"),
    ("middle", "stages:blocks.2,blocks.4,blocks.5,blocks.6"),
    ("pools", "stages:blocks.4,blocks.5/mean,centre,max"),
)


# what decides an embedding beside the weights
_DECIDES = (
    "architecture",
    "model_args",
    "embedding",
    "dense_stage",
    "prefix_tokens",
    "input_size",
    "resize",
    "resize_size",
    "interpolation",
    "mean",
    "std",
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An encoder that is evaluated.

    Attributes:
        name: Its name in tables.
        encoder: The encoder.
        fingerprint: sha256 of its weights, network, embedding rule and preprocessing.
    """

    name: str
    encoder: Encoder
    fingerprint: str

    def embed(self, files: list[Path]) -> NDArray[np.float32]:
        """Recommended embeddings [N, D] of image files, resized whole."""
        rows: NDArray[np.float32] = self.encoder.encode(
            [str(f) for f in files], precision="fp32", runtime="torch"
        )
        return rows

    def embed_images(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Recommended embeddings [N, D] of images [H, W, 3], resized whole."""
        rows: NDArray[np.float32] = self.encoder.encode(images, precision="fp32", runtime="torch")
        return rows

    def for_maps(self) -> Encoder:
        """The encoder in the form in which its feature maps are fastest to compute.

        `encode` runs it by itself. The same maps to about 1e-6.
        """
        return Encoder(for_inference(self.encoder.network, "auto"), self.encoder.spec)


def open_subject(name: str) -> list[Subject]:
    """The encoders of a name on the command line.

    Args:
        name: `default`, `random`, `imagenet` (three readouts), `NAME=FOLDER,FOLDER`
            (training runs of one encoder), or anything that `load_encoder` takes.

    Returns:
        One encoder, or several where the name means several.

    Raises:
        PathEncoderError: An encoder cannot be loaded.
    """
    title, several, folders = name.partition("=")
    if several:
        return [subject_of(title, load_encoder(folder)) for folder in folders.split(",")]
    if name == "imagenet":
        return [
            subject_of(f"imagenet, {title}", plain(IMAGENET.model_copy(update={"embedding": rule})))
            for title, rule in IMAGENET_READOUTS
        ]
    if name == "random":
        return [subject_of("random", plain(IMAGENET.model_copy(update={"start": None})))]
    return [subject_of(name, load_encoder(None if name == "default" else name))]


def networks(names: Sequence[str]) -> dict[str, list[Subject]]:
    """The networks of names, each with one readout, for tables of slow fits.

    Of the three readouts of ImageNet it is the one that the default encoder has.

    Args:
        names: As for `open_subject`.

    Returns:
        By the name of a row, its encoders: several training runs where the name means several.

    Raises:
        PathEncoderError: An encoder cannot be loaded.
    """
    alike = f"imagenet, {IMAGENET_READOUTS[-1][0]}"
    rows: dict[str, list[Subject]] = {}
    for subject in (x for name in names for x in open_subject(name)):
        if subject.name == alike or not subject.name.startswith("imagenet, "):
            name = "imagenet" if subject.name == alike else subject.name
            rows.setdefault(name, []).append(dataclasses.replace(subject, name=name))
    return rows


def plain(settings: BackboneSettings) -> Encoder:
    """A network with its starting weights as an encoder; without weights: random, of seed 0."""
    torch.manual_seed(0)
    spec = make.spec_of(settings, ExportSettings(name=settings.architecture))
    return Encoder(make.make_backbone(settings).eval(), spec)


def subject_of(name: str, encoder: Encoder) -> Subject:
    """An encoder under a name, with its fingerprint."""
    spec = dataclasses.asdict(encoder.spec)
    decides = json.dumps({name: spec[name] for name in _DECIDES}, sort_keys=True)
    digest = hashlib.sha256(decides.encode())
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return Subject(name, encoder, digest.hexdigest())
