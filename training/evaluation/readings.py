"""The `readings` command of training.evaluate: other ways of reading one encoder, on train folds.

Compared with the embedding as it is: the mean over turned views of each tile (`encode(views=)`),
and, for a CNN that reads stages, texture statistics beside the embedding (textures.py). Every
difference has a paired interval over groups. Test parts are not read.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.images import open_image
from pathencoder.metrics import Interval, balanced_accuracy
from pathencoder.pooling import stage_rule
from training.data.spaced import evenly_spaced
from training.evaluation import probe as protocol
from training.evaluation import shared_options
from training.evaluation.encoders import Subject, open_subject
from training.evaluation.outcomes import Ints, Outcome
from training.evaluation.robustness import centred_cosine
from training.evaluation.sets import TILE_SETS, ProbeSet, open_sets
from training.evaluation.textures import texture_rows, textures_of
from training.files import write_text

log = logging.getLogger("training")

Floats = NDArray[np.float32]
PLAIN = "as it is"
_COSINES_OF = 200  # tiles

Figure = Callable[[Outcome, Ints], float]
FIGURES: dict[str, Figure] = {
    "AUROC": lambda o, i: protocol.auroc(o.y[i], o.probability[i]),
    "balanced accuracy": lambda o, i: balanced_accuracy(o.y[i], o.predicted[i]),
}


@click.command()
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder of the sets.")
@click.option(
    "--sets",
    "chosen",
    default="lymphoma_iicbu,bisque_breast",
    show_default=True,
    help=f"Comma-separated, of {', '.join(TILE_SETS)}.",
)
@click.option(
    "--views", default="4", show_default=True, help="Comma-separated numbers of views; 0: none."
)
@click.option("--textures", is_flag=True, help="Also texture statistics beside the embedding.")
@shared_options.seeds("Of the probe.")
@shared_options.json_file()
def readings(
    names: tuple[str, ...],
    data: Path,
    chosen: str,
    views: str,
    textures: bool,  # noqa: FBT001
    seeds: int,
    out: Path | None,
) -> None:
    """Compare readings of encoders: names as for `probe`.

    Cosines are of centred embeddings of tiles and of the same tiles turned.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        numbers = [int(number) for number in views.split(",") if int(number)]
        sets = open_sets(chosen.split(","), data=data, cache=Path("runs/probe"), choose=True)
        for subject in (s for name in names for s in open_subject(name)):
            for s in sets:
                figures = compare(subject, s, numbers, seeds=seeds, textures=textures)
                found.setdefault(subject.name, {})[s.name] = figures
                _show(subject.name, s, figures)
    except (PathEncoderError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if out:
        write_text(out, json.dumps(found, indent=1) + "\n")


def compare(
    subject: Subject, s: ProbeSet, views: list[int], *, seeds: int, textures: bool
) -> dict[str, Any]:
    """Probe one encoder by several readings of one set.

    Args:
        subject: The encoder.
        s: The set, of train parts alone.
        views: Numbers of views.
        seeds: Of the probe.
        textures: Also texture statistics.

    Returns:
        By reading: `dim`, `seconds` of encoding, the figures of `FIGURES`, for all but the first
        their `differences` to it (value, low, high), and for views the `cosines` of turned tiles.

    Raises:
        PathEncoderError: The encoder has no such reading, or an image cannot be read.
    """
    files = [s.folder / file for file in s.labels.files]
    rows, seconds = dict[str, Floats](), dict[str, float]()
    for number in (1, *views):
        name, started = PLAIN if number == 1 else f"{number} views", time.process_time()
        rows[name] = _encoded(subject, [str(file) for file in files], number)
        seconds[name] = time.process_time() - started
    if textures:
        rows |= _textures(subject, files, rows[PLAIN])
    figures: dict[str, Any] = {}
    plain = protocol.probe(rows[PLAIN], s.labels, test=None, seeds=seeds)
    for name, x in rows.items():
        outcomes = plain if name == PLAIN else protocol.probe(x, s.labels, test=None, seeds=seeds)
        figures[name] = {"dim": x.shape[1], **_means(outcomes)}
        if name in seconds:
            figures[name]["seconds"] = round(seconds[name], 1)
        if name != PLAIN:
            figures[name]["differences"] = _differences(outcomes, plain)
        log.info("%s, %s, %s: %s", subject.name, s.name, name, figures[name])
    for number in (1, *views):
        figures[PLAIN if number == 1 else f"{number} views"]["cosines"] = _cosines(
            subject, files, number
        )
    return figures


def _encoded(subject: Subject, images: Any, views: int) -> Floats:
    rows: Floats = subject.encoder.encode(
        images, views=views, precision="fp32", runtime="torch", progress=False
    )
    return rows


def _textures(subject: Subject, files: list[Path], plain: Floats) -> dict[str, Floats]:
    """The embedding with each texture statistic beside it."""
    rule = stage_rule(subject.encoder.spec.embedding)
    if rule is None:
        raise ConfigError(
            f"{subject.name} reads {subject.encoder.spec.embedding!r}: --textures are of CNNs whose"
            " readout names stages"
        )
    found = texture_rows(subject.encoder, textures_of(subject.encoder, rule), files)
    return {f"with {name}": np.concatenate([plain, x], axis=1) for name, x in found.items()}


def _means(outcomes: list[Outcome]) -> dict[str, float]:
    every = np.arange(len(outcomes[0].y))
    return {
        name: round(float(np.mean([figure(o, every) for o in outcomes])), 4)
        for name, figure in FIGURES.items()
    }


def _differences(ours: list[Outcome], theirs: list[Outcome]) -> dict[str, list[float]]:
    """Value, low and high of ours minus theirs, on the same bootstrap draws over groups."""
    found = {}
    for name, figure in FIGURES.items():

        def difference(i: Ints, figure: Figure = figure) -> float:
            return float(
                np.mean([figure(a, i) - figure(b, i) for a, b in zip(ours, theirs, strict=True)])
            )

        low, high = protocol.interval_of(ours[0], difference)
        value = Interval(difference(np.arange(len(ours[0].y))), low, high)
        found[name] = [round(v, 4) for v in (value.value, value.low, value.high)]
    return found


def _cosines(subject: Subject, files: list[Path], views: int) -> dict[str, float]:
    """Centred cosine of tiles with the same tiles turned and mirrored."""
    images = [open_image(files[i]) for i in evenly_spaced(len(files), _COSINES_OF)]
    upright = _encoded(subject, images, views)
    moved = {
        "quarter turn": [np.rot90(image).copy() for image in images],
        "mirror image": [image[:, ::-1].copy() for image in images],
    }
    return {
        name: round(centred_cosine(upright, _encoded(subject, turned, views)), 4)
        for name, turned in moved.items()
    }


def _show(encoder: str, s: ProbeSet, figures: dict[str, Any]) -> None:
    groups = len(np.unique(s.labels.groups))
    click.echo(f"\n{encoder} on {s.name} (train parts, folds by group; {groups} groups)")
    for name, row in figures.items():
        line = f"  {name:34s}{row['dim']:5d} numbers"
        if "seconds" in row:
            line += f" {row['seconds']:6.1f} s"
        click.echo(line)
        for figure in FIGURES:
            value = f"    {figure:20s}{row[figure]:.3f}"
            if "differences" in row:
                difference, low, high = row["differences"][figure]
                value += f"  {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
            click.echo(value)
        for turn, cosine in row.get("cosines", {}).items():
            click.echo(f"    centred cosine, {turn:14s}{cosine:.4f}")
