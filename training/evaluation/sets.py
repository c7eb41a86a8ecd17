"""The labelled sets of the probe.

Folders with a labels.csv, and cells cut out around annotated points.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from training.evaluation.probe import Labels, part_of, read_labels

TILE_SETS = ("amibr", "hpylori_ihc", "crc_polyp5", "lymphoma_iicbu", "bisque_breast")
CELL_SETS = ("crchisto", "consep20x_points", "brca_m2c", "bcdata_sample")
SETS = (*TILE_SETS, *CELL_SETS)


@dataclass(frozen=True)
class ProbeSet:
    """A labelled set and the part that is reported: `part` None means five folds by group."""

    name: str
    folder: Path
    labels: Labels
    part: str | None
    choose: bool  # train parts alone


def open_sets(
    names: Sequence[str], *, data: Path, tools: Path, cache: Path, choose: bool
) -> list[ProbeSet]:
    """The sets of these names. choose: rows of train and folds parts alone, read by folds.

    Raises ConfigError for a name that is no set, or a folder that is not there.
    """
    unknown = sorted(set(names) - set(SETS))
    if unknown:
        raise ConfigError(f"no probe set {unknown}; there are {SETS}")
    return [_open(name, data, tools, cache, choose=choose) for name in names]


def _open(name: str, data: Path, tools: Path, cache: Path, *, choose: bool) -> ProbeSet:
    folder = _cells(name, tools, cache) if name in CELL_SETS else data / "tiles" / name
    table = folder / "labels.csv"
    if not table.is_file():
        raise ConfigError(f"{table} is not there: give the folder that holds tiles/ with --data")
    labels = read_labels(table, choose=choose)
    return ProbeSet(name, folder, labels, None if choose else part_of(labels), choose)


def _cells(name: str, tools: Path, cache: Path) -> Path:
    """Cut once, by the tool's own defaults."""
    out = cache / "cells"
    if not (out / name / "labels.csv").is_file():
        script = tools / "cut_cells.py"
        if not script.is_file():
            raise ConfigError(
                f"{script} is not there: give the folder that holds cut_cells.py with --tools"
            )
        subprocess.run([sys.executable, str(script), str(out), "--sets", name], check=True)
    return out / name
