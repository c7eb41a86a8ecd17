"""What packing, reading and computing cost on this machine, for `python -m training.plan --probe`.

Each takes some seconds. CPU seconds are those of one core.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pathencoder.compat import import_timm
from pathencoder.errors import ConfigError
from training.archive.pack.layout import read_layout
from training.archive.pack.run import Where, pack
from training.archive.pack.settings import Settings
from training.archive.row import Row
from training.archive.sources.open_source import place_of
from training.data.corpus import open_corpus

_SECONDS = 4.0  # of each measurement, about
_SLIDES = 2  # that are packed
_WARM = 2  # steps that are not timed
_TOKENS = 197  # of the network below at 224 px
_PARAMETERS, _DEPTH, _WIDTH = 21.3e6, 12, 384
_NETWORK = "vit_small_patch16_224"


@dataclass(frozen=True)
class Probe:
    """What was measured here.

    Attributes:
        tile_kb: Mean size of a tile in the shards, in KB.
        tiles: Tiles of a slide in the shards.
        read: Tiles that one core reads and decodes in a second.
        pack: CPU seconds to pack a slide; None where no slide lies here.
        device: The device that computes.
        flops: Operations a second that it reaches, forward and backward.
    """

    tile_kb: float
    tiles: float
    read: float
    pack: float | None
    device: str
    flops: float


def probe(shards: Path, rows: Sequence[Row] = (), slides: Path = Path()) -> Probe:
    """Measure this machine.

    Args:
        shards: Some shards of `python -m training.archive pack`.
        rows: Of the manifest, of which a few slides are packed again, into a temporary folder.
        slides: Where `fetch` put them.

    Returns:
        What was measured.

    Raises:
        ConfigError: The folder holds no shards.
    """
    layout = read_layout(shards)
    if layout is None or not layout.settings.pixels:
        raise ConfigError(
            f"--probe {shards}: no shards of `python -m training.archive pack` are there: pack some"
            " slides first"
        )
    kb, tiles, read = _reading(shards)
    packed = _packing(rows, slides, layout.settings)
    device, flops = step_rate()
    return Probe(kb, tiles, read, packed, device, flops)


def _reading(shards: Path) -> tuple[float, float, float]:
    """KB of a tile, tiles of a slide, tiles that a core reads in a second."""
    corpus = open_corpus(shards)
    batch = np.empty_like(corpus.read(0))  # as in a run, a tile is decoded into its batch
    done, size, begun = 0, 0, time.process_time()
    while (spent := time.process_time() - begun) < _SECONDS:
        index = done * 7919 % len(corpus)  # in no order
        (data,) = corpus.fetch([index]).values()
        corpus.decode(index, data, batch)
        size += len(data) if isinstance(data, bytes) else 0
        done += 1
    return size / done / 1e3, len(corpus) / len(corpus.slide_names), done / spent


def _packing(rows: Sequence[Row], slides: Path, settings: Settings) -> float | None:
    here = [row for row in rows if row.use and not row.problem and place_of(row, slides).exists()][
        :_SLIDES
    ]
    if not here:
        return None
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        pack(here, Path(folder), settings, slides=slides, where=Where(processes=0))
        return (time.process_time() - begun) / len(here)


def step_rate() -> tuple[str, float]:
    """The device's name, and the operations a second that it reaches in training a ViT-S/16."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    batch = 128 if cuda else 2
    network = import_timm().create_model(_NETWORK, num_classes=0).to(device)
    images = torch.zeros(batch, 3, 224, 224, device=device)
    forward = 2 * _TOKENS * _PARAMETERS + 4 * _TOKENS**2 * _DEPTH * _WIDTH
    done, begun = 0, 0.0
    for step in range(10_000):
        if step == _WARM:
            _finish(device)
            begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            network(images).square().mean().backward()
        if step >= _WARM:
            done += 1
            _finish(device)
            if time.perf_counter() - begun > _SECONDS:
                break
    seconds = time.perf_counter() - begun
    return name, 3 * forward * batch * done / seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
