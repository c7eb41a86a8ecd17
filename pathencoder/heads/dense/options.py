"""The options of dense heads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.heads.dense.smp import DECODERS, OURS
from pathencoder.heads.dense.train import Training
from pathencoder.mpp import check_mpp
from pathencoder.walk import expanded

PRECISIONS = ("auto", "fp32", "bf16")
STAINS = ("he", "ihc")


@dataclass(frozen=True)
class DenseOptions:
    """Options of "glands", "nuclei", "points" and "pixels".

    Attributes:
        stain: "he" or "ihc": of images whose stain the data do not state.
        steps: Of the training.
        batch: Windows in a step.
        side: Of a window, in pixels; a transformer takes windows of its own input size.
        lr: Highest rate of the decoder.
        encoder_lr: Highest rate of the encoder. None: 0.0005; 0 keeps it frozen.
        decoder: "fpn", or one of segmentation-models-pytorch: "unet", "unetplusplus", "manet",
            "linknet", "fpn-smp" or "segformer".
        frozen: Train the decoder alone; the head then needs the encoder beside it.
        precision: Of the training: "fp32", "bf16", or "auto": bf16 on devices that multiply it
            natively.
        read_mpp: Micrometres per pixel at which images are read. None: glands 1, nuclei and points
            0.25, pixels 0.5.
        stain_maps: Give the stain maps of the label-free nuclei beside the image.
        cells: Of "points": learn the classes of cells too, where the data have them.
        folds: Folds by group for the report, each of which costs a fit. 0: none.
        checkpoint: A folder for the state of the training: the same call goes on where it was
            interrupted, and gives the same head; saving the head removes it. None: a fit starts
            anew.
    """

    stain: str = "he"
    steps: int = Training.steps
    batch: int = Training.batch
    side: int = Training.side
    lr: float = Training.lr
    encoder_lr: float | None = None
    decoder: str = OURS
    frozen: bool = False
    precision: str = "auto"
    read_mpp: float | None = None
    stain_maps: bool = False
    cells: bool = True
    folds: int = 0
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that does not fit."""
        for name, least in (("steps", 1), ("batch", 1), ("side", 32), ("folds", 0)):
            value = getattr(self, name)
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
            _check(name, value, f"a whole number from {least} on", fits=fits)
        _check("folds", self.folds, "0 (none), or a whole number from 2 on", fits=self.folds != 1)
        _check(
            "lr", self.lr, "a number above 0 and below 1", fits=_is_rate(self.lr) and self.lr > 0
        )
        rate = self.encoder_lr
        fits = rate is None or _is_rate(rate)
        _check("encoder_lr", rate, "a number from 0 on and below 1, or None", fits=fits)
        for name in ("frozen", "stain_maps", "cells"):
            value = getattr(self, name)
            _check(name, value, "True or False", fits=isinstance(value, bool))
        fits = self.decoder in DECODERS
        _check("decoder", self.decoder, f"one of {', '.join(DECODERS)}", fits=fits)
        text = ", ".join(PRECISIONS)
        _check("precision", self.precision, f"one of {text}", fits=self.precision in PRECISIONS)
        if self.frozen and rate:
            raise ConfigError(f"frozen=True and encoder_lr={rate!r} contradict each other")
        if self.read_mpp is not None:
            check_mpp(self.read_mpp)
        check_stain(self.stain)
        place = self.checkpoint
        path = isinstance(place, str | os.PathLike) and bool(os.fspath(place))
        _check("checkpoint", place, "a folder, or None", fits=place is None or path)

    @property
    def place(self) -> Path | None:
        """The folder for checkpoints."""
        return None if self.checkpoint is None else expanded(self.checkpoint)

    def training(self, seed: int) -> Training:
        """The settings of the training."""
        rate = Training.encoder_lr if self.encoder_lr is None else float(self.encoder_lr)
        return Training(
            steps=self.steps,
            batch=self.batch,
            side=self.side,
            lr=float(self.lr),
            encoder_lr=0.0 if self.frozen else rate,
            seed=seed,
            precision=self.precision,
        )

    def settings(self, seed: int) -> dict[str, Any]:
        """What a head depends on, as JSON values."""
        how = self.training(seed)
        names = ("steps", "batch", "side", "lr", "encoder_lr", "seed")
        return {name: getattr(how, name) for name in names} | {
            "read_mpp": self.read_mpp,
            "decoder": self.decoder,
            "stain_maps": self.stain_maps,
            "stain": self.stain,
        }


def check_stain(stain: object) -> None:
    """Raises ConfigError where a stain is not known."""
    if stain not in STAINS:
        raise ConfigError(f"stain={stain!r}: one of {', '.join(STAINS)}")


def _check(name: str, value: object, wanted: str, *, fits: bool) -> None:
    if not fits:
        raise ConfigError(f"{name}={value!r}: {wanted}")


def _is_rate(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < 1  # type: ignore[operator]
