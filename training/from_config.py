"""The sampler and the starting network of a run, as functions of its config alone."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import torch
from torch import Tensor, nn

from training import augment
from training.archive.pack.positions import make_positions
from training.archive.pack.settings import MPP
from training.backbones import make
from training.config import Config
from training.data.corpus import open_corpus, with_slides
from training.data.loader import batches
from training.data.sampler import Sampler, make_sampler
from training.data.stains import stain_weights
from training.data.tiles import STAIN_CLASSES, Corpus
from training.data.window import in_window

log = logging.getLogger(__name__)


def corpus_of(cfg: Config) -> Corpus:
    """The tiles that a config asks for.

    Raises:
        ConfigError: As `open_corpus`.
    """
    d = cfg.data

    positions = d.slides and make_positions(d.slides, d.canvas, d.mpp or MPP)
    corpus = open_corpus(
        d.root,
        licences=d.licences,
        stains=d.stains,
        without=d.without,
        share=d.share,
        cache_mb=cfg.run.cache_mb,
    )
    if positions and d.root != positions:
        corpus = with_slides(
            corpus,
            positions,
            licences=d.licences,
            stains=d.stains,
            without=d.without,
            share=d.share,
        )
    return corpus if d.stain is None else with_stain(corpus, d.stain)


def with_stain(corpus: Corpus, name: str) -> Corpus:
    """The corpus with a stain class for the tiles that have none."""
    unknown, stain = STAIN_CLASSES.index("unknown"), STAIN_CLASSES.index(name)
    count = corpus.stain_counts().get("unknown", 0)
    if not count:
        log.warning("data.stain=%s: every tile has a stain class, so that it changes nothing", name)
        return corpus
    log.info("data.stain: %d of %d tiles without a stain class are %s", count, len(corpus), name)

    def known(stains: np.ndarray) -> np.ndarray:
        return np.where(stains == unknown, stain, stains).astype(stains.dtype)

    of_tiles = corpus.tile_stains
    return dataclasses.replace(
        corpus,
        slide_stains=known(corpus.slide_stains),
        tile_stains=None if of_tiles is None else known(of_tiles),
        contents=corpus.contents.with_stain(name),
    )


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
        run=d.run,
    )
    _describe_runs(cfg, corpus)
    return in_window(sampler, corpus, d.window)


def _describe_runs(cfg: Config, corpus: Corpus) -> None:
    """Log what data.run does."""
    if cfg.data.run == 1:
        return
    log.info(
        "tiles are drawn in runs of %d neighbours, a tile a step (data.run)%s",
        cfg.data.run,
        f"; up to {cfg.data.run} batches of encoded tiles are held in memory"
        if corpus.source.remote
        else "",
    )
    if corpus.source.remote and cfg.run.loader_processes > 1 and not cfg.run.cache_mb:
        log.warning(
            "%d decoding processes without a local cache: each fetches its own tiles of a run."
            " run.cache_mb=20000 shares them, with fewer requests to the store",
            cfg.run.loader_processes,
        )


def starting_network(cfg: Config, corpus: Corpus, sampler: Sampler) -> nn.Module:
    """The backbone with its starting weights, and real BatchNorm statistics where those are set."""
    network = make.make_backbone(cfg.backbone)
    if cfg.backbone.real_statistics:
        make.give_real_statistics(network, _first_views(cfg, corpus, sampler))
    return network


def network_at_start(cfg: Config) -> nn.Module:
    """The backbone as a run of this config starts with it."""
    corpus = corpus_of(cfg)
    sampler = sampler_of(cfg, corpus)
    torch.manual_seed(cfg.seed)
    return starting_network(cfg, corpus, sampler)


def _first_views(cfg: Config, corpus: Corpus, sampler: Sampler) -> Tensor:
    """Views of the tiles of step 0 without colour changes, to measure BatchNorm statistics on."""
    _, batch = next(
        batches(corpus, sampler, canvas=cfg.data.canvas, mpp=cfg.data.mpp, start=0, stop=1)
    )
    crop = augment.CropSettings(count=1, px=112, area=(0.25, 1.0))
    plain = augment.crops(batch.tiles, crop, torch.Generator().manual_seed(cfg.seed))
    return augment.normalise(plain, cfg.backbone.mean, cfg.backbone.std)
