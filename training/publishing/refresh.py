"""Give the card of a bundled encoder new figures, and write it again; its weights stay.

    python -m training.publishing.refresh NAME --figures EVALUATION.json --overlap OVERLAP.json

EVALUATION.json is what `training.evaluate all` wrote, OVERLAP.json what
`training.publishing.overlap NAME` wrote.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.pretrained.folder import METRICS, parse_config, read_spec
from training.evaluation.report_file import read_report
from training.files import write_text
from training.provenance.record import Provenance
from training.publishing import shared_options
from training.publishing.card import RECORD, ROOT, recorded, rewrite
from training.publishing.metrics import today
from training.publishing.overlap import counted
from training.publishing.own_row import own_row
from training.publishing.public_report import public


@click.command(help=__doc__)
@click.argument("name")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of `training.evaluate all`; they take the place of all earlier figures.",
)
@shared_options.row()
@shared_options.overlap(default="as it is")
@shared_options.note(default=None)
def main(
    name: str, figures: Path | None, row: str | None, overlap: Path | None, note: str | None
) -> None:
    """Refresh a card."""
    try:
        click.echo(refresh(name, figures=figures, row=row, overlap=overlap, note=note))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def refresh(
    name: str,
    *,
    figures: Path | None = None,
    row: str | None = None,
    overlap: Path | None = None,
    note: str | None = None,
    root: Path = ROOT,
) -> Path:
    """Write figures and card of a bundled encoder again.

    Args:
        name: The encoder's.
        figures: The file of `training.evaluate all`; None: the figures stay.
        row: The encoder's row in it; None: the one of its weights and readout.
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
        again = f"python -m training.evaluate all {name} imagenet random --out FOLDER"
        mine = own_row(report, read_spec(folder), file=figures, again=again, name=row)
        report, published_row = public(report, mine.name, name=mine.name, place=None)
        metrics |= {"row": published_row, "report": dataclasses.asdict(report), "date": today()}
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return rewrite(name, root)


if __name__ == "__main__":
    main()
