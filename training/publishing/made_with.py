"""What a run cost and which sources its tiles are from, for its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from pathencoder.errors import ConfigError
from pathencoder.tables import read_table
from training.data.corpus import open_corpus
from training.monitor.log import FILE, read_log
from training.provenance.record import Provenance
from training.publishing.average import steps_of
from training.publishing.card import SourceRow


def cost(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs cost, by their logs.

    Args:
        runs: Their folders.

    Returns:
        Number of runs, steps and fields of the crops of each, and the CPU and wall seconds of all.

    Raises:
        ConfigError: A log is missing, or no line of it can be read.
    """
    last = [_last_line(run) for run in runs]
    crops = [
        yaml.safe_load((run / "config.yaml").read_text())["method"].get("crop") or {}
        for run in runs
    ]
    # a log may end before the last step
    steps = [max(line["step"], steps_of(run)) for run, line in zip(runs, last, strict=True)]
    facts = {
        "runs": len(runs),
        "steps": steps,
        "fields": [crop.get("field", [1.0, 1.0]) for crop in crops],
    }
    return {
        **facts,
        **{f"{k}_seconds": sum(line[f"{k}_s"] for line in last) for k in ("cpu", "wall")},
    }


def _last_line(run: Path) -> dict[str, Any]:
    """The last line of a run's log that has its cost."""
    whole = [line for line in read_log(run) if {"step", "cpu_s", "wall_s"} <= line.keys()]
    if whole:
        return dict(whole[-1])
    raise ConfigError(
        f"{run / FILE} has no line with what the run cost: restore the log, from which the card"
        " takes its cost and curves"
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
    used = set(corpus.keys)
    tiles = Counter[tuple[str, str, str]]()
    slides: dict[tuple[str, str, str], set[str]] = {}
    for _, r in read_table(root / "manifest.csv", required=("shard", "key")):
        if r["key"] in used or f"{r['shard']}/{r['key']}" in used:
            src, stain, licence = (r.get(c) or "-" for c in ("src", "stain_class", "licence"))
            tiles[src, stain, licence] += 1
            slides.setdefault((src, stain, licence), set()).add(r.get("slide") or r["key"])
    return [(*kind, n, len(slides[kind])) for kind, n in tiles.most_common()]
