"""The sampler and the starting network of a run, as functions of its config alone."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from training import augment
from training.backbones import make
from training.config import Config
from training.data.loader import batches
from training.data.sampler import Sampler, make_sampler
from training.data.stains import stain_weights
from training.data.tiles import STAIN_CLASSES, Corpus
from training.data.window import in_window

log = logging.getLogger(__name__)


def sampler_of(cfg: Config, corpus: Corpus) -> Sampler:
    """The sampler that a config asks for."""
    d = cfg.data
    there = corpus.stain_counts()
    if without := [name for name in d.stain_weights if name in STAIN_CLASSES and name not in there]:
        log.warning(
            "data.stain_weights: no tile is %s: these weights change nothing", " or ".join(without)
        )
    sampler = make_sampler(
        corpus,
        batch=d.batch,
        seed=cfg.seed,
        slide_power=d.slide_power,
        organ_power=d.organ_power,
        stain_power=d.stain_power,
        stain_weights=stain_weights(d.stain_weights),
    )
    return in_window(sampler, corpus, d.window)


def starting_network(cfg: Config, corpus: Corpus, sampler: Sampler) -> nn.Module:
    """The backbone with its starting weights, and real BatchNorm statistics where those are set."""
    network = make.make_backbone(cfg.backbone)
    if cfg.backbone.real_statistics:
        make.give_real_statistics(network, _first_views(cfg, corpus, sampler))
    return network


def _first_views(cfg: Config, corpus: Corpus, sampler: Sampler) -> Tensor:
    """Views of the tiles of step 0 without colour changes, to measure BatchNorm statistics on."""
    _, batch = next(batches(corpus, sampler, canvas=cfg.data.canvas, start=0, stop=1))
    crop = augment.CropSettings(count=1, px=112, area=(0.25, 1.0))
    plain = augment.crops(batch.tiles, crop, torch.Generator().manual_seed(cfg.seed))
    return augment.normalise(plain, cfg.backbone.mean, cfg.backbone.std)
