"""`pathencoder fit`: a head on labelled images."""

from __future__ import annotations

import contextlib
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
from pathencoder.cli.config_file import config_argument
from pathencoder.cli.encode import VIEWS
from pathencoder.cli.labelled import encoder_options, groups_options, weight_option
from pathencoder.heads import kinds
from pathencoder.heads.datasets import catalogue
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.data.dataset import Dataset
    from pathencoder.heads.data.pictures import PictureSet
    from pathencoder.heads.fit import Head

CHECKPOINT = "checkpoint"  # in --out, while a dense head is fitted


def _options(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is a number where it reads as one."""
    found: dict[str, Any] = {}
    for pair in values:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE, for example c=0.01")
        try:
            found[name] = json.loads(text, parse_constant=_refused)
        except ValueError:
            found[name] = text
    return found


def _refused(text: str) -> float:
    raise click.BadParameter(f"{text}: a finite number is needed")


@click.command(short_help="Fit a head on labelled images.")
@config_argument()
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
    help="Classifiers: a folder per class, or a CSV with the columns path, label and, optionally,"
    " group, split. Dense heads: a folder of images and their label maps, points or outlines, a CSV"
    " (image, labels), or COCO's JSON.",
)
@click.option(
    "--dataset",
    type=click.Choice(catalogue.names()),
    help="--data is the folder of this public set as it was downloaded.",
)
@click.option(
    "--dataset-option",
    "dataset_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options,
    help="Of the public set: fold=1 of breakhis, for one. May be repeated.",
)
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the head.",
)
@encoder_options
@click.option(
    "--features",
    type=FilledPath(path_type=Path, exists=True, file_okay=False),
    help="Heads of slides: the folder of the feature files. No encoder is loaded.",
)
@click.option("--label", default=None, help="CSV: the column of the labels. Default: label.")
@click.option(
    "--classes", help="Pixels, points: names of the classes, comma-separated, by their number."
)
@groups_options
@click.option(
    "--evaluate", metavar="PART", default=None, help="Held-out part to evaluate on: test, for one."
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the images. Default: classifiers resize each whole, dense heads"
    " take what each file states.",
)
@click.option(
    "--output", default="embedding", show_default=True, help="Classifiers: as for `encode`."
)
@click.option(
    "--views",
    type=click.Choice(VIEWS),
    default="1",
    show_default=True,
    help="Classifiers: as for `encode`; dense heads: views that are averaged in predictions.",
)
@weight_option
@click.option(
    "--max-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Classifiers: share of wrong labels that is accepted: abstain below the probability that"
    " reaches it.",
)
@click.option(
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options,
    help="Of the kind of head: c=0.01, k=20, shots=5, hidden=256; of dense heads steps=700,"
    " frozen=true, folds=4 and others. May be repeated.",
)
@click.option("--skip-bad", is_flag=True, help="Classifiers: leave out images that cannot be read.")
@click.option("--no-cache", is_flag=True, help="Classifiers: do not keep the embeddings on disk.")
@click.option("--overwrite", is_flag=True, help="Replace a head that is in --out.")
@device_option
@json_option
@debug_option
def command(
    *,
    kind: str,
    data: Path,
    dataset: str | None,
    dataset_options: dict[str, Any],
    out: Path,
    name: str | None,
    features: Path | None,
    revision: str | None,
    label: str | None,
    classes: str | None,
    groups: str | None,
    split: str | None,
    evaluate: str | None,
    mpp: float | None,
    output: str,
    views: str,
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
    """Fit a head on labelled images, and say what it reaches.

    Classifiers (linear, mlp, knn, prototypes) are evaluated on folds that keep the images of a
    patient together. Embeddings are kept on disk: `pathencoder cache`.

    Dense heads (glands, nuclei, points, pixels) are evaluated on folds with -o folds=4, or on the
    part that --evaluate names. An interrupted fit goes on where it was: the same command again.

    Heads of slides (abmil, slide-mean, slide-max) take a CSV with the columns slide, label and,
    optionally, patient, split, and the feature files of the slides.

    The data set is checked as a whole first. CONFIG is a TOML file of these options (head =
    "linear", data = "tiles.csv" and so on; those of the kind of head in a table [options]); its
    paths are relative to it, and options of the command line count before it.

    \b
    pathencoder fit --data tiles.csv --out head
    pathencoder fit head.toml
    pathencoder fit --data tiles/ --groups '(P\\d+)_' --head knn --out head
    pathencoder fit --head glands --data pictures/ --mpp 0.5 --out glands
    pathencoder fit --head abmil --data slides.csv --features features/ --out head
    pathencoder fit --dataset mhist --data downloads/mhist --evaluate test --out head
    pathencoder predict head new_tiles/ --out predictions
    """
    from pathencoder import allocator
    from pathencoder.cli.meter import Meter
    from pathencoder.heads import store
    from pathencoder.heads.fit import fit

    if store.is_head(out) and not overwrite:
        raise click.UsageError(f"{out} holds a head already: --overwrite replaces it")
    store.refuse_others(out)  # before hours of work
    family = kinds.family_of(kind)
    if family == "slide":
        options = {**_of_slides(features, device, classes, revision), **options}
    elif features is not None:
        raise click.UsageError(f"--features is of heads of slides, and {kind} is none")
    kinds.options_of(kind, options)
    columns = {"labels": label, "groups": groups, "splits": split}
    given = {key: value for key, value in columns.items() if value is not None}
    dense = family == "dense"
    progress: Any = Meter("fit", unit="step") if dense else "auto"
    source = data if dataset is None else _public(dataset, data, dataset_options, family)
    read: Dataset | PictureSet | Path
    if dense:
        allocator.keep_freed_memory()
        options = {"checkpoint": str(out / CHECKPOINT), **options}
        read = _pictures(kind, source, mpp, options, given, classes)
    elif family == "classifier":
        read = _tiles(source, given, classes)
    else:
        options, read = {**given, **options}, data
    with progress if dense else contextlib.nullcontext():
        head = fit(
            kind,
            name if family == "slide" else load(name, device=device, revision=revision),
            read,
            mpp=None if dense else mpp,  # the images were read with it
            output=output,
            views=int(views),
            evaluate=evaluate,
            class_weight=None if class_weight == "none" else "balanced",
            max_error=max_error,
            on_error="skip" if skip_bad else "raise",
            seed=seed,
            cache=not no_cache,
            progress=progress,
            **options,
        )
    head.save(out)
    _report(head, out, as_json=as_json)
    raise Failed(0)


def _of_slides(
    features: Path | None, device: str, classes: str | None, revision: str | None
) -> dict[str, Any]:
    """The options of heads of slides that have a place of their own on the command line."""
    if classes is not None or revision is not None:
        raise click.UsageError("--classes and --revision: heads of slides do not take them")
    return {"device": device} if features is None else {"device": device, "features": str(features)}


def _public(name: str, folder: Path, options: dict[str, Any], family: str) -> Any:
    """A public data set, which has the labels that heads of the family learn."""
    from pathencoder.heads.datasets.open import open_dataset

    task = catalogue.public_set(name).task
    if task == "classify" and family != "classifier":
        raise click.UsageError(f"{name} has a class an image: --head linear, mlp, knn, prototypes")
    if task != "classify" and family != "dense":
        what = "outlines" if task == "segment" else "points"
        raise click.UsageError(f"{name} has {what}: --head glands, nuclei or points")
    return open_dataset(name, folder, **options)


def _tiles(data: Any, given: dict[str, Any], classes: str | None) -> Dataset:
    """The data set of a classifier, checked before the encoder is loaded."""
    from pathencoder.heads.data.check import train_part
    from pathencoder.heads.data.read import read_dataset
    from pathencoder.heads.folds import require_sklearn

    if classes is not None:
        raise click.UsageError("--classes names the classes of pixels and points: leave it out")
    require_sklearn()
    read = read_dataset(data, **given)
    train_part(read)
    return read


def _pictures(
    kind: str,
    data: Any,
    mpp: float | None,
    options: dict[str, Any],
    given: dict[str, Any],
    classes: str | None,
) -> PictureSet:
    """The data set of a dense head, checked before the encoder is loaded."""
    from pathencoder.heads.data.pictures import read_pictures

    if classes is not None:
        if "labels" in given:
            raise click.UsageError("--label names a column and --classes classes: give one of them")
        given = {**given, "labels": [name.strip() for name in classes.split(",")]}
    stain = kinds.options_of(kind, options).stain
    return read_pictures(data, task=kind, mpp=mpp, stain=stain, **given)


def _report(head: Head, out: Path, *, as_json: bool) -> None:
    reports = {"report": head.report, "held_out": head.held_out}
    if as_json:
        contents = {key: report and report.to_json() for key, report in reports.items()}
        notes = [] if head.report is not None else list(getattr(head, "notes", ()))
        echo_json(
            {
                "head": str(out),
                "kind": head.kind,
                "settings": head.settings,
                **contents,
                "notes": notes,
            }
        )
        return
    for report in reports.values():
        if report is not None:
            click.echo(printable(report.text()))
    click.echo(printable(f"Head: {out}"))
    inputs = "FEATURES" if kinds.family_of(head.kind) == "slide" else "IMAGES"
    click.echo(printable(f"Use it: pathencoder predict {out} {inputs} --out predictions"))
