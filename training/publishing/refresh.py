"""Give the card of a bundled encoder new figures, and write it again; its weights stay.

    python -m training.publishing.refresh NAME --figures EVALUATION.json --overlap OVERLAP.json

EVALUATION.json is what `training.evaluate all` wrote, OVERLAP.json what
`training.publishing.overlap NAME` wrote.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.pretrained.folder import METRICS, parse_config, read_spec
from training.evaluation.report_file import read_report
from training.evaluation.report_rows import EncoderRow, Report
from training.files import write_text
from training.provenance.record import Provenance
from training.publishing.card import RECORD, ROOT, recorded, rewrite
from training.publishing.overlap import counted
from training.publishing.public_report import public


@click.command(help=__doc__)
@click.argument("name")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of `training.evaluate all`; they take the place of all earlier figures.",
)
@click.option(
    "--overlap",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of `training.publishing.overlap NAME`.",
)
@click.option("--note", help="How the encoder was chosen. Default: as it is.")
def main(name: str, figures: Path | None, overlap: Path | None, note: str | None) -> None:
    """Refresh a card."""
    try:
        click.echo(refresh(name, figures=figures, overlap=overlap, note=note))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def refresh(
    name: str,
    *,
    figures: Path | None = None,
    overlap: Path | None = None,
    note: str | None = None,
    root: Path = ROOT,
) -> Path:
    """Write figures and card of a bundled encoder again.

    Args:
        name: The encoder's.
        figures: The file of `training.evaluate all`; None: the figures stay.
        overlap: The file of `training.publishing.overlap`; None: it stays.
        note: How the encoder was chosen; None: it stays.
        root: The folder of pathencoder/ and model_cards/.

    Returns:
        The card.

    Raises:
        ConfigError: There is no such encoder, the figures are of other weights or another readout,
            or the overlap is of other tiles.
    """
    if name not in recorded(root):
        raise ConfigError(f"{name}: no bundled encoder with a record: {', '.join(recorded(root))}")
    folder, shown = root / "pathencoder/weights" / name, root / "model_cards" / name
    metrics = parse_config(folder / METRICS)
    if overlap is not None:
        made_from = Provenance.from_json(parse_config(shown / RECORD))
        metrics["overlap"] = counted(overlap, made_from, Path(name))
    if note is not None:
        metrics["note"] = note
    if figures is not None:
        report = read_report(figures)
        mine = _row_of(report, folder, figures)
        report, row = public(report, mine.name, name=mine.name, place=None)
        for old in ("measured", "robustness"):
            metrics.pop(old, None)
        metrics |= {"row": row, "report": dataclasses.asdict(report)}
        metrics["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return rewrite(name, root)


def _row_of(report: Report, folder: Path, file: Path) -> EncoderRow:
    spec = read_spec(folder)
    rows = [r for r in report.rows_of(str(spec.sha256)) if r.readout == spec.embedding]
    if len(rows) != 1:
        raise ConfigError(
            f"{file}: {len(rows)} rows are {folder.name} with its weights and readout: measure it,"
            " python -m training.evaluate all NAME imagenet random --out FOLDER"
        )
    return rows[0]


if __name__ == "__main__":
    main()
