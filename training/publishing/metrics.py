"""The content of an encoder's metrics.json, which its card is written from."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.report_rows import Report
from training.provenance.record import Provenance
from training.publishing.made_with import cost, sources
from training.publishing.overlap import counted


def metrics_of(
    report: Report,
    row: str,
    *,
    sha256: str,
    note: str,
    runs: Sequence[Path],
    config: dict[str, Any],
    made_from: Provenance,
    overlap: Path | None,
    checks: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        report: The figures, as they are published.
        row: The encoder's row in them.
        sha256: Of the weights.
        note: How the encoder was chosen.
        runs: The runs whose weights it holds.
        config: Settings of the first run.
        made_from: The record of the runs.
        overlap: The file of `training.publishing.overlap`; None: not checked.
        checks: How the written files were compared with the network: "timm", "parity", "onnx".

    Raises:
        ConfigError: A log has no cost, or the tiles or the overlap are not those of the record.
    """
    return {
        "date": today(),
        "weights_sha256": sha256,
        "row": row,
        "note": note,
        "training": {**cost(runs), "sources": sources(config, made_from)},
        **checks,
        "overlap": counted(overlap, made_from, runs[0]) if overlap else None,
        "report": dataclasses.asdict(report),
    }


def today() -> str:
    """The date in UTC, YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
