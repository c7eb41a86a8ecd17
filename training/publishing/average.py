"""A finished run exported in another way: averaged with its start, or read from other stages.

No step is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from pathencoder.errors import ConfigError
from training import config
from training.backbones import make
from training.config import Config
from training.data.corpus import Corpus
from training.data.open_corpus import open_corpus
from training.export import export
from training.from_config import sampler_of, starting_network
from training.trainer import checkpoint


def reexport(
    runs: Sequence[Path], folder: Path, *, start_share: float = 0.0, embedding: str | None = None
) -> Path:
    """Write one encoder of `runs` to `folder`.

    The plain average of their weights (runs from one start that differ in seed or settings,
    Wortsman et al. 2022, arXiv:2203.05482), then averaged with the first run's start.

    start_share: the start's share; embedding: the readout, the first run's own if None. Raises
    ConfigError for a run whose export is
    an average already: nothing trained can be taken out of it.
    """
    configs = [config.load(run / "config.yaml") for run in runs]
    for run, cfg in zip(runs, configs, strict=True):
        if cfg.export.start_share:
            raise ConfigError(
                f"{run} exported an average with its start; train it with export.start_share=0 to"
                " average it anew"
            )
    cfg = configs[0]
    corpus = corpus_of(cfg)
    network = trained_network(runs[0], cfg)
    for done, run in enumerate(runs[1:], 1):
        network = make.averaged(network, trained_network(run, cfg), 1 / (done + 1))
    if start_share:
        network = make.averaged(
            network, starting_network(cfg, corpus, sampler_of(cfg, corpus)), start_share
        )
    backbone = cfg.backbone.model_copy(update={"embedding": embedding or cfg.backbone.embedding})
    exported = cfg.export.model_copy(update={"start_share": start_share})
    cfg = cfg.model_copy(update={"backbone": backbone, "export": exported})
    return export(cfg, network, corpus, folder, steps=[steps_of(run) for run in runs])


def corpus_of(cfg: Config) -> Corpus:
    """The corpus that a config asks for."""
    d = cfg.data
    return open_corpus(d.root, licences=d.licences, stains=d.stains, without=d.without)


def trained_network(run: Path, cfg: Config) -> nn.Module:
    """The exported weights in the run's backbone, in eval mode."""
    network = make.make_backbone(cfg.backbone.model_copy(update={"start": None}))
    state = load_file(run / "export" / "model.safetensors")
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    return network.eval()


def steps_of(run: Path) -> int:
    """How many steps a run has done, by its newest checkpoint; 0 without one."""
    newest = checkpoint.latest(run)
    return int(newest.name.removeprefix("step-")) if newest else 0
