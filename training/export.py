"""A trained backbone as a folder that `load_encoder` reads (DESIGN: config, weights in fp16, reference tile, licence)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder import hub
from pathencoder import network as readout
from pathencoder.folder import write_folder
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform
from training.backbones import make
from training.config import Config
from training.data.corpus import Corpus


def export(cfg: Config, network: nn.Module, corpus: Corpus, folder: Path, *, steps: Sequence[int]) -> Path:
    """Write the network; weights in fp16, the reference embedding recomputed from those. steps: of each run whose average it is."""
    spec = make.spec_of(cfg.backbone, cfg.export)
    stains = ", ".join(f"{n} {name}" for name, n in corpus.stain_counts().items())
    share = cfg.export.start_share
    training = (
        f"{cfg.method.name}{_taught_by(cfg)}, {_length(steps)} steps of {cfg.data.batch} tiles; "
        f"{len(corpus)} tiles of {len(corpus.slide_names)} slides ({stains})"
        + (f", averaged with the starting weights ({share:g} of them)" if share else "")
    )
    return write_encoder(network, dataclasses.replace(spec, training=training), folder)


def _taught_by(cfg: Config) -> str:
    """The teachers' names: a folder is called what its encoder is called."""
    names = [hub.describe(str(teacher)).name for teacher in getattr(cfg.method, "teachers", ())]
    return f" of {', '.join(names)}" if names else ""


def _length(steps: Sequence[int]) -> str:
    lengths = " or ".join(str(n) for n in sorted(set(steps)))
    return lengths if len(steps) == 1 else f"average of {len(steps)} runs of {lengths}"


def write_encoder(network: nn.Module, spec: EncoderSpec, folder: Path, *, licence: str | None = None) -> Path:
    """The folder of a network and its spec."""
    state = half_precision(network.state_dict())
    tile = reference_tile()
    with torch.no_grad():
        check = readout.create(spec)
        check.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True)
        embedding = readout.read(check.eval(), spec, Transform(spec)(tile)[None]).embedding[0]
    write_folder(folder, spec, state, reference_tile=tile, reference_embedding=embedding.float().numpy(), licence=licence)
    return folder


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in fp16 on the CPU. BatchNorm's running statistics stay fp32: a variance below 6e-8 would become zero."""
    keep = ("running_mean", "running_var", "num_batches_tracked")
    return {k: (v if k.endswith(keep) else v.half()).cpu().contiguous() for k, v in state.items()}


def reference_tile() -> np.ndarray:
    """uint8 [224, 224, 3]: the middle of scikit-image's IHC picture, a real tile that anyone can have."""
    from skimage import data

    picture = data.immunohistochemistry()
    top, left = (picture.shape[0] - 224) // 2, (picture.shape[1] - 224) // 2
    tile: np.ndarray = np.ascontiguousarray(picture[top : top + 224, left : left + 224])
    return tile
