"""Make a bundled encoder, with its card, from a finished run.

python -m training.publishing.bundle EXPORT EVALUATION.json --name NAME

EXPORT is an exported encoder: RUN/export, or an average of several runs, each given with --run.
EVALUATION.json is what `training.evaluate all` wrote.
Writes pathencoder/weights/NAME (part of the wheel; with card and figures) and model_cards/NAME
(record, settings, logs and curves of its runs).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from safetensors.torch import load_file

from pathencoder import __version__
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder, whole_file
from pathencoder.pretrained.folder import CARD, CONFIG, WEIGHTS, read_spec, write_folder
from pathencoder.spec import EncoderSpec
from training.evaluation.report_file import read_report
from training.files import write_text
from training.provenance.record import Provenance
from training.publishing import shared_options, timm_check
from training.publishing.card import RECORD, ROOT, card, page_of
from training.publishing.licence_texts import LICENCES
from training.publishing.metrics import metrics_of
from training.publishing.own_row import own_row
from training.publishing.public_report import public
from training.report import curves

_VERSION = re.compile(r"[0-9]+\.[0-9]+")


@click.command(help=__doc__)
@click.argument("export", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("figures", metavar="EVALUATION.json", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A run whose weights are in EXPORT; several times. Default: the folder of EXPORT.",
)
@click.option("--name", required=True, help="Of the bundled encoder.")
@shared_options.row()
@shared_options.note()
@click.option(
    "--version",
    help="Of the weights, MAJOR.MINOR. Default: 1.0; where the name exists, the next minor version"
    " for the same bytes, the next major one for others.",
)
@shared_options.overlap()
def main(
    export: Path,
    figures: Path,
    *,
    runs: tuple[Path, ...],
    name: str,
    row: str | None,
    note: str,
    version: str | None,
    overlap: Path | None,
) -> None:
    """Bundle an encoder."""
    try:
        folder = bundle(
            export,
            runs or (export.parent,),
            figures=figures,
            name=name,
            row=row,
            note=note,
            version=version,
            overlap=overlap,
        )
        spec = read_spec(folder)
        click.echo(f"{folder}\nAdd the version to the table in docs/versioning.md:")
        click.echo(f"| {name} | {spec.version} | {__version__} | `{spec.sha256}` |")
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def bundle(
    export: Path,
    runs: Sequence[Path],
    *,
    figures: Path,
    name: str,
    row: str | None = None,
    note: str = "",
    version: str | None = None,
    overlap: Path | None = None,
    root: Path = ROOT,
) -> Path:
    """Write the folders of a bundled encoder below pathencoder/weights and model_cards.

    Args:
        export: The exported encoder.
        runs: The runs whose weights it holds; their configs, logs and curves go beside the card.
        figures: The file of `training.evaluate all`.
        name: Name of the bundled encoder.
        row: This encoder's row in the figures; None: the one of its weights and readout.
        note: How this encoder was chosen, for the card.
        version: Of the weights; None: see `next_version`.
        overlap: The file of `training.publishing.overlap`; None: not checked.
        root: The folder of pathencoder/ and model_cards/.

    Returns:
        The folder below pathencoder/weights.

    Raises:
        ConfigError: The export has no record, the figures are none of `training.evaluate all` or of
            other weights, the tiles are others than those of the record, its licence is none of
            LICENCES, or the version is one that these bytes cannot have.
        PathEncoderError: A file of the export or of a run is missing or not valid, or a file cannot
            be written.
    """
    target, shown = root / "pathencoder/weights" / name, root / "model_cards" / name
    made_from = _record(export)
    spec = _spec(export, target, version)
    configs = [_config(run) for run in runs]
    report = read_report(figures)
    again = f"python -m training.evaluate all {name}={export} imagenet random --out FOLDER"
    mine = own_row(report, spec, file=figures, again=again, name=row)
    by_timm, output = timm_check.check(export)
    report, published_row = public(report, mine.name, name=name, place=name)
    metrics = metrics_of(
        report,
        published_row,
        sha256=str(spec.sha256),
        note=note,
        runs=runs,
        config=configs[0],
        made_from=made_from,
        overlap=overlap,
        checks={"timm": dataclasses.asdict(by_timm)},
    )
    reference = timm_check.reference_of(export)
    write_folder(
        target,
        spec,
        load_file(export / WEIGHTS),
        reference_tile=reference.tile,
        reference_embedding=reference.embedding,
        card=card(spec, configs, metrics, made_from),
        licence=LICENCES[spec.licence],
        metrics=metrics,
    )
    timm_check.add_to_reference(target, output)
    _write_runs(export, runs, shown)
    write_text(shown / CARD, page_of(name, root))
    return target


def next_version(target: Path, sha256: str | None, wanted: str | None = None) -> str:
    """The version of weights that are to be bundled.

    Args:
        target: Their folder, which may hold an earlier version.
        sha256: Of the weights.
        wanted: The version that was asked for; None: the next one.

    Returns:
        MAJOR.MINOR: 1.0 for a new name; of the same bytes the next minor version, of others the
        next major one.

    Raises:
        ConfigError: `wanted` is no such version, or these bytes cannot have it.
    """
    if wanted is not None and not _VERSION.fullmatch(wanted):
        raise ConfigError(f"--version {wanted!r}: MAJOR.MINOR, such as 1.0")
    if not (target / CONFIG).is_file():
        return wanted or "1.0"
    there = read_spec(target)
    major, minor = map(int, (there.version or "0.0").split("."))
    same = there.sha256 == sha256
    found = wanted or (f"{major}.{minor + 1}" if same else f"{major + 1}.0")
    if not same and int(found.split(".")[0]) <= major:
        raise ConfigError(
            f"--version {found}: {target.name} {there.version} has other bytes, and other bytes"
            f" need the major version {major + 1} (docs/versioning.md)"
        )
    return found


def _record(export: Path) -> Provenance:
    if not (export / RECORD).is_file():
        raise ConfigError(
            f"{export} has no {RECORD}, which says what it was made from: export the run again,"
            " python -m training.export RUN"
        )
    return Provenance.from_json(json.loads((export / RECORD).read_text()))


def _spec(export: Path, target: Path, version: str | None) -> EncoderSpec:
    """The spec of an export as it is bundled: with its name and version."""
    spec = read_spec(export)
    if spec.licence not in LICENCES:
        raise ConfigError(
            f"{export}: its licence is {spec.licence}; bundled encoders have one of"
            f" {', '.join(LICENCES)}. Train on tiles and a start whose licences are known"
        )
    # a maintainer who bundles an encoder has measured it: its figures are beside it
    return dataclasses.replace(
        spec, name=target.name, version=next_version(target, spec.sha256, version), verified=True
    )


def _config(run: Path) -> dict[str, Any]:
    """The settings of a run, as it wrote them."""
    file = run / "config.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{run} is no folder of a run: it has no config.yaml. Name the runs whose weights are"
            " in the export with --run"
        )
    values: dict[str, Any] = yaml.safe_load(file.read_text())
    return values


def _write_runs(export: Path, runs: Sequence[Path], shown: Path) -> None:
    """The record, and settings, log and curves of each run, in place of what was there."""
    shutil.rmtree(shown, ignore_errors=True)
    make_folder(shown)
    _copy(export / RECORD, shown / RECORD)
    for run in runs:
        end = "" if len(runs) == 1 else f"-{run.name}"
        _copy(run / "log.jsonl", shown / f"log{end}.jsonl")
        _copy(run / "config.yaml", shown / f"config{end}.yaml")
        curves(run, shown / f"curves{end}.png")


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copy(source, temporary)


if __name__ == "__main__":
    main()
