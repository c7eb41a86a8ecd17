"""The row of an evaluation that is an encoder: of its weights, and read in the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from training.evaluation.report_rows import EncoderRow, Report


def own_row(
    report: Report, spec: EncoderSpec, *, file: Path, again: str, name: str | None = None
) -> EncoderRow:
    """The row of an encoder, with what a card needs beside it.

    Args:
        report: The figures.
        spec: The encoder, with the sha256 of its weights.
        file: The file of the figures, for messages.
        again: The command that measures the encoder, for messages.
        name: The row's name; None: the one with these weights, readout and preprocessing.

    Raises:
        ConfigError: The figures are of other weights, no row or several are this encoder, the row
            has no figure of the probe, or there is no row of random weights.
    """
    of_weights = report.rows_of(str(spec.sha256))
    if not of_weights:
        found = ", ".join(
            f"{row.name} {(row.weights[0].sha256 or 'random')[:12]}" for row in report.encoders
        )
        raise ConfigError(
            f"{file} is stale: the encoder has sha256 {str(spec.sha256)[:12]}, the figures are of"
            f" {found}. Measure again: {again}"
        )
    rows = [row for row in of_weights if _is_read_alike(row, spec) and name in (None, row.name)]
    if len(rows) != 1:
        names = ", ".join(f"{row.name} ({row.readout})" for row in of_weights)
        raise ConfigError(
            f"{file}: {len(rows)} rows are this encoder with its readout {spec.embedding} and its"
            f" preprocessing{f', named {name}' if name else ''}; of its weights there are {names}."
            f" Choose one with --row, or measure again: {again}"
        )
    (mine,) = rows
    if not any(r.value is not None for r in report.find(encoder=mine.name, verb="probe")):
        raise ConfigError(f"{file} has no figure of the probe for {mine.name}: {again}")
    if not any(row.role == "random" for row in report.encoders):
        raise ConfigError(
            f"{file} has no row of random weights: a figure says nothing without one. Measure"
            f" again: {again}"
        )
    return mine


def _is_read_alike(row: EncoderRow, spec: EncoderSpec) -> bool:
    """Whether a row has the readout and the preprocessing of a spec."""
    pixels = dataclasses.fields(row.transform)
    return row.readout == spec.embedding and all(
        getattr(row.transform, field.name) == getattr(spec, field.name) for field in pixels
    )
