"""What a run cost and which sources its tiles are from, for its card."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from pathencoder.errors import ConfigError
from pathencoder.tables import read_table
from training.data.corpus import Corpus, open_corpus
from training.monitor.log import FILE, as_written
from training.provenance.record import Provenance
from training.publishing.average import steps_of
from training.publishing.card import SourceRow


def cost(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs cost, by their logs.

    Args:
        runs: Their folders.

    Returns:
        Number of runs, steps and fields of the crops of each, and the CPU and wall seconds of all,
        with those of every process that resumed a run.

    Raises:
        ConfigError: A log is missing, or no line of it can be read.
    """
    spent = [_spent(run) for run in runs]
    crops = [
        yaml.safe_load((run / "config.yaml").read_text())["method"].get("crop") or {}
        for run in runs
    ]
    # a log may end before the last step
    steps = [max(one.step, steps_of(run)) for run, one in zip(runs, spent, strict=True)]
    facts = {
        "runs": len(runs),
        "steps": steps,
        "fields": [crop.get("field", [1.0, 1.0]) for crop in crops],
    }
    return {
        **facts,
        "cpu_seconds": sum(one.cpu for one in spent),
        "wall_seconds": sum(one.wall for one in spent),
    }


@dataclass(frozen=True)
class _Spent:
    """The last step of a run's log, and the seconds of all processes that wrote it."""

    step: int
    cpu: float
    wall: float


def _spent(run: Path) -> _Spent:
    whole = [line for line in as_written(run) if {"cpu_s", "wall_s"} <= line.keys()]
    if not whole:
        raise ConfigError(
            f"{run / FILE} has no line with what the run cost: restore the log, from which the card"
            " takes its cost and curves"
        )
    # clocks that go back are those of the next process
    ends = [
        line
        for line, then in zip(whole, [*whole[1:], None], strict=True)
        if then is None or any(then[clock] < line[clock] for clock in ("cpu_s", "wall_s"))
    ]
    return _Spent(
        max(line["step"] for line in whole),
        round(sum(line["cpu_s"] for line in ends), 1),
        round(sum(line["wall_s"] for line in ends), 1),
    )


def sources(config: dict[str, Any], made_from: Provenance) -> list[SourceRow]:
    """The sources of the images that a run was trained on.

    Args:
        config: The run's configuration.
        made_from: Its record.

    Returns:
        (source, stain class, licence, tiles, slides), those with most tiles first; empty for tiles
        without a manifest.csv.

    Raises:
        ConfigError: The corpus or its manifest cannot be read, or its tiles are others than those
            of the record.
    """
    data = config["data"]
    root = Path(data["root"])
    if "://" in str(data["root"]) or not (root / "manifest.csv").is_file():
        return []
    corpus = open_corpus(
        root,
        licences=tuple(data["licences"]),
        stains=tuple(data["stains"]),
        without=tuple(data["without"]),
        share=float(data.get("share", 1)),
    )
    if corpus.digest != made_from.corpus.digest:
        raise ConfigError(
            f"the tiles of {root} are {len(corpus):,}, not the {made_from.corpus.tiles:,} of the"
            " run's record: restore them, so that the card names the sources of those"
        )
    if (root / "slides.csv").is_file():  # of both tables only that one is read
        return []
    used = _used(corpus)
    tiles = Counter[tuple[str, str, str]]()
    slides: dict[tuple[str, str, str], set[str]] = {}
    for _, r in read_table(root / "manifest.csv", required=("shard", "key")):
        shard, key = posixpath.normpath(r["shard"]), r["key"]
        if not used.isdisjoint({(shard, key), (shard, f"{shard}/{key}")}):
            src, stain, licence = (r.get(c) or "-" for c in ("src", "stain_class", "licence"))
            tiles[src, stain, licence] += 1
            slides.setdefault((src, stain, licence), set()).add(r.get("slide") or r["key"])
    return [(*kind, n, len(slides[kind])) for kind, n in tiles.most_common()]


def _used(corpus: Corpus) -> set[tuple[str, str]]:
    """Shard and name of every tile: an unused tile of another shard may have the same name."""
    root, tiles = corpus.source.place(""), corpus.tiles
    return {
        (os.path.relpath(tiles.place(i).file, root).replace(os.sep, "/"), tiles.key(i))
        for i in range(len(tiles))
    }
