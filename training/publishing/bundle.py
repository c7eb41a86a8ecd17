"""Make a bundled encoder, with its card, from a finished run.

python -m training.publishing.bundle EXPORT EVALUATION.json --row ROW --name NAME

EXPORT is an exported encoder: RUN/export, or an average of several runs, each given with --run.
Writes pathencoder/weights/NAME (part of the wheel; with card and figures) and model_cards/NAME
(record, settings, logs and curves of its runs).
"""

from __future__ import annotations

import dataclasses
import datetime
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
from pathencoder.pretrained.folder import (
    CARD,
    CONFIG,
    read_reference,
    read_spec,
    write_folder,
)
from training.evaluation.encoders import open_subject
from training.evaluation.report_rows import FORMAT
from training.files import write_text
from training.provenance.record import Provenance
from training.publishing import timm_check
from training.publishing.card import RECORD, ROOT, card, page_of
from training.publishing.licence_texts import LICENCES
from training.publishing.made_with import cost, sources
from training.publishing.overlap import counted
from training.report import curves

_VERSION = re.compile(r"[0-9]+\.[0-9]+")


@click.command(help=__doc__)
@click.argument("export", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("metrics", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A run whose weights are in EXPORT.",
)
@click.option("--row", required=True, help="This encoder's row in it: default, research ...")
@click.option("--name", required=True)
@click.option(
    "--robustness",
    type=click.Path(path_type=Path, exists=True),
    help="JSON of `training.evaluate robustness`, for the card.",
)
@click.option("--note", default="", help="How this encoder was chosen, for the card.")
@click.option(
    "--version",
    help="Of the weights, MAJOR.MINOR. Default: 1.0; where the name exists, the next minor version"
    " for the same bytes, the next major one for others.",
)
@click.option(
    "--overlap",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON of `training.publishing.overlap`. Default: the card says that it was not checked.",
)
def main(
    export: Path,
    metrics: Path,
    *,
    runs: tuple[Path, ...],
    row: str,
    name: str,
    robustness: Path | None,
    note: str,
    version: str | None,
    overlap: Path | None,
) -> None:
    """Bundle an encoder."""
    try:
        shifts = json.loads(robustness.read_text()) if robustness else None
        measured = json.loads(metrics.read_text())
        folder = bundle(
            export,
            runs or (export.parent,),
            measured=measured,
            row=row,
            name=name,
            robustness=shifts,
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
    measured: dict[str, Any],
    row: str,
    name: str,
    robustness: dict[str, Any] | None = None,
    note: str = "",
    version: str | None = None,
    overlap: Path | None = None,
    root: Path = ROOT,
) -> Path:
    """Write the folders of a bundled encoder below pathencoder/weights and model_cards.

    Args:
        export: The exported encoder.
        runs: The runs whose weights it holds; their configs, logs and curves go beside the card.
        measured: What `training.evaluate all`, or `training.evaluate probe --json`, wrote.
        row: This encoder's row in it.
        name: Name of the bundled encoder.
        robustness: What `training.evaluate robustness --json` wrote.
        note: How this encoder was chosen, for the card.
        version: Of the weights; None: see `next_version`.
        overlap: The file of `training.publishing.overlap`; None: not checked.
        root: The folder of pathencoder/ and model_cards/.

    Returns:
        The folder below pathencoder/weights.

    Raises:
        ConfigError: The export has no record, the figures are of other weights, the tiles are
            others than those of the record, its licence is none of LICENCES, or the version is
            one that these bytes cannot have.
        PathEncoderError: A file of the export or of a run is missing or not valid, or a file cannot
            be written.
    """
    target, shown = root / "pathencoder/weights" / name, root / "model_cards" / name
    made_from = _record(export)
    _refuse_other_weights(export, measured, row)
    # a maintainer who bundles an encoder has measured it: its figures are beside it
    spec = dataclasses.replace(read_spec(export), name=name, verified=True)
    if spec.licence not in LICENCES:
        raise ConfigError(
            f"{export}: its licence is {spec.licence}; bundled encoders have one of"
            f" {', '.join(LICENCES)}. Train on tiles and a start whose licences are known"
        )
    spec = dataclasses.replace(spec, version=next_version(target, spec.sha256, version))
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    by_timm, output = timm_check.check(export)
    figures = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "weights_sha256": spec.sha256,
        "row": row,
        "note": note,
        "training": {**cost(runs), "sources": sources(configs[0], made_from)},
        "timm": dataclasses.asdict(by_timm),
        "overlap": counted(overlap, made_from, export.parent) if overlap else None,
        **({"report": measured} if _is_report(measured) else {"measured": measured}),
        "robustness": robustness,
    }
    text = card(spec, configs, figures, made_from)
    reference = read_reference(export)
    if reference is None:
        raise ConfigError(f"{export} has no reference.safetensors: export the run again")
    write_folder(
        target,
        spec,
        load_file(export / "model.safetensors"),
        reference_tile=reference.tile,
        reference_embedding=reference.embedding,
        card=text,
        licence=LICENCES[spec.licence],
        metrics=figures,
    )
    timm_check.add_to_reference(target, output)
    shutil.rmtree(shown, ignore_errors=True)
    make_folder(shown)
    _copy(export / RECORD, shown / RECORD)
    for run in runs:
        end = "" if len(runs) == 1 else f"-{run.name}"
        _copy(run / "log.jsonl", shown / f"log{end}.jsonl")
        _copy(run / "config.yaml", shown / f"config{end}.yaml")
        curves(run, shown / f"curves{end}.png")
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


def _refuse_other_weights(export: Path, measured: dict[str, Any], row: str) -> None:
    """Raise ConfigError where a row of the figures is not of these weights and this readout."""
    if _is_report(measured):
        found = [r for r in measured["encoders"] if r["name"] == row]
        known = [w["fingerprint"] for w in found[0]["weights"]] if found else None
    else:
        known = measured.get("about", {}).get("encoders", {}).get(row)
    if known is None:
        raise ConfigError(
            f"the figures do not say which weights the row {row!r} is of: measure them again,"
            " python -m training.evaluate all ... --out FOLDER"
        )
    (subject,) = open_subject(str(export))
    if known != [subject.fingerprint]:
        raise ConfigError(
            f"the row {row!r} of the figures is of other weights or another readout than {export}:"
            " measure the export that is bundled"
        )


def _is_report(measured: dict[str, Any]) -> bool:
    """Whether the figures are those of `training.evaluate all`."""
    return measured.get("format") == FORMAT


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copy(source, temporary)


if __name__ == "__main__":
    main()
