"""A trained backbone as a folder that `load_encoder` reads.

It holds the config, the weights in fp16, a reference tile and the licence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from pathencoder.pretrained import locate
from training.backbones import make
from training.backbones.save import write_encoder
from training.config import Config
from training.data.tiles import Corpus


def export(
    cfg: Config, network: nn.Module, corpus: Corpus, folder: Path, *, steps: Sequence[int]
) -> Path:
    """Write a network as an encoder; the reference embedding is computed from the fp16 weights.

    Args:
        cfg: Of the run.
        network: The trained backbone.
        corpus: What it was trained on, for the summary.
        folder: Where to write.
        steps: Those of the run; of each run where the network is an average of several.

    Returns:
        The folder.
    """
    spec = make.spec_of(cfg.backbone, cfg.export)
    stains = ", ".join(f"{n} {name}" for name, n in corpus.stain_counts().items())
    share = cfg.export.start_share
    length = _length(steps, cfg.optim.steps)
    training = (
        f"{cfg.method.name}{_taught_by(cfg)}, {length} steps of {cfg.data.batch} tiles;"
        f" {len(corpus)} tiles of {len(corpus.slide_names)} slides ({stains})"
        + (f", averaged with the starting weights ({share:g} of them)" if share else "")
    )
    return write_encoder(network, dataclasses.replace(spec, training=training), folder)


def _taught_by(cfg: Config) -> str:
    """The teachers' names; a folder has the name of its encoder."""
    names = [locate.describe(str(teacher)).name for teacher in cfg.method.teacher_encoders()]
    return f" of {', '.join(names)}" if names else ""


def _length(steps: Sequence[int], planned: int) -> str:
    lengths = " or ".join(str(n) for n in sorted(set(steps)))
    if max(steps) < planned:
        lengths = f"stopped at {lengths} of {planned}"
    return lengths if len(steps) == 1 else f"average of {len(steps)} runs of {lengths}"
