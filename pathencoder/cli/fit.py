"""`pathencoder fit`: a head on labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    debug_option,
    device_option,
    echo_json,
    json_option,
    load,
)
from pathencoder.heads import kinds
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.classifier import Classifier


def _options(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is a number where it reads as one."""
    found: dict[str, Any] = {}
    for pair in values:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE, for example c=0.01")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


@click.command(short_help="Fit a head on labelled images.")
@click.option(
    "--head",
    "kind",
    type=click.Choice(kinds.names()),
    default="linear",
    show_default=True,
    help="Kind of head.",
)
@click.option(
    "--data",
    required=True,
    type=FilledPath(path_type=Path, exists=True),
    help="A folder per class, or a CSV with the columns path, label and, optionally, group, split.",
)
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the head.",
)
@click.option(
    "--encoder",
    "name",
    default=None,
    help="Name, folder or owner/repo; `pathencoder list`. Default: the bundled one.",
)
@click.option("--revision", default=None, help="Revision of the encoder on the Hub.")
@click.option("--label", default=None, help="CSV: the column of the classes. Default: label.")
@click.option(
    "--groups",
    default=None,
    help="CSV: the column of patients or slides. Default: group, patient, case or slide. Folder: a"
    r" regular expression with one part in parentheses, searched in each path, as '(P\d+)_'.",
)
@click.option("--split", default=None, help="CSV: the column of the parts. Default: split or fold.")
@click.option(
    "--evaluate", metavar="PART", default=None, help="Held-out part to evaluate on: test, for one."
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the images. Default: each is resized whole.",
)
@click.option("--output", default="embedding", show_default=True, help="As for `encode`.")
@click.option(
    "--class-weight",
    type=click.Choice(["balanced", "none"]),
    default="balanced",
    show_default=True,
    help="Whether every class, or every image, counts the same.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of wrong labels that is accepted: abstain below the probability that reaches it.",
)
@click.option(
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options,
    help="Of the kind of head: c=0.01, k=20, shots=5, hidden=256. May be repeated.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of folds and random numbers.")
@click.option("--no-cache", is_flag=True, help="Do not keep the embeddings on disk.")
@click.option("--overwrite", is_flag=True, help="Replace a head that is in --out.")
@device_option
@json_option
@debug_option
def command(
    *,
    kind: str,
    data: Path,
    out: Path,
    name: str | None,
    revision: str | None,
    label: str | None,
    groups: str | None,
    split: str | None,
    evaluate: str | None,
    mpp: float | None,
    output: str,
    class_weight: str,
    max_error: float | None,
    options: dict[str, Any],
    skip_bad: bool,
    seed: int,
    no_cache: bool,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    r"""Fit a head on the embeddings of labelled images, and say what it reaches.

    It is evaluated on folds that keep the images of a patient together. The data set is checked
    as a whole first. Embeddings are kept on disk: `pathencoder cache`.

    \b
    pathencoder fit --data tiles.csv --out head
    pathencoder fit --data tiles/ --groups '(P\d+)_' --head knn --out head
    pathencoder predict head new_tiles/ --out predictions
    """
    from pathencoder.heads import store
    from pathencoder.heads.data.check import train_part
    from pathencoder.heads.data.read import read_dataset
    from pathencoder.heads.fit import fit
    from pathencoder.heads.folds import require_sklearn

    if store.is_head(out) and not overwrite:
        raise click.UsageError(f"{out} holds a head already: --overwrite replaces it")
    require_sklearn()
    kinds.options_of(kind, options)
    columns = {"labels": label, "splits": split}
    given = {key: value for key, value in columns.items() if value is not None}
    read = read_dataset(data, groups=groups, **given)
    train_part(read)  # before the encoder is loaded
    head = fit(
        kind,
        load(name, device=device, revision=revision),
        read,
        mpp=mpp,
        output=output,
        evaluate=evaluate,
        class_weight=None if class_weight == "none" else "balanced",
        max_error=max_error,
        on_error="skip" if skip_bad else "raise",
        seed=seed,
        cache=not no_cache,
        **options,
    )
    head.save(out)
    _report(head, out, as_json=as_json)
    raise Failed(0)


def _report(head: Classifier, out: Path, *, as_json: bool) -> None:
    reports = {"report": head.report, "held_out": head.held_out}
    if as_json:
        contents = {key: report and report.to_json() for key, report in reports.items()}
        echo_json({"head": str(out), "kind": head.kind, "settings": head.settings, **contents})
        return
    for report in reports.values():
        if report is not None:
            click.echo(printable(report.text()))
    click.echo(printable(f"Head: {out}"))
    click.echo(printable(f"Use it: pathencoder predict {out} IMAGES --out predictions"))
