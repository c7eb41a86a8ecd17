"""The network that a run starts from, as a function of its config alone.

What training moves, and what averages go back to.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from training import augment
from training.backbones import make
from training.config import Config
from training.data.corpus import STAIN_CLASSES, Corpus
from training.data.loader import batches
from training.data.sampler import Sampler, make_sampler
from training.data.stains import stain_weights

log = logging.getLogger(__name__)


def sampler_of(cfg: Config, corpus: Corpus) -> Sampler:
    """The sampler that a config asks for."""
    d = cfg.data
    there = corpus.stain_counts()
    if without := [name for name in d.stain_weights if name in STAIN_CLASSES and name not in there]:
        log.warning(
            "data.stain_weights: no tile is %s: these weights change nothing", " or ".join(without)
        )
    return make_sampler(
        corpus,
        batch=d.batch,
        seed=cfg.seed,
        slide_power=d.slide_power,
        organ_power=d.organ_power,
        stain_power=d.stain_power,
        stain_weights=stain_weights(d.stain_weights),
    )


def starting_network(cfg: Config, corpus: Corpus, sampler: Sampler) -> nn.Module:
    """Backbone with its starting weights, and real BatchNorm statistics where the config asks for them."""
    network = make.make_backbone(cfg.backbone)
    if cfg.backbone.real_statistics:
        make.give_real_statistics(network, _first_views(cfg, corpus, sampler))
    return network


def _first_views(cfg: Config, corpus: Corpus, sampler: Sampler) -> Tensor:
    """Step 0's tiles as views without colour changes: what BatchNorm statistics are measured on."""
    _, batch = next(batches(corpus, sampler, canvas=cfg.data.canvas, start=0, stop=1))
    crop = augment.CropSettings(count=1, px=112, area=(0.25, 1.0))
    plain = augment.crops(batch.tiles, crop, torch.Generator().manual_seed(cfg.seed))
    return augment.normalise(plain, cfg.backbone.mean, cfg.backbone.std)
