"""The `nuclei` command of training.evaluate: label-free nuclei on every labelled set, over seeds.

Rows: `otsu` (hematoxylin above its Otsu threshold), `stain` (mean of the three stain maps above 0,
from which our network's first pseudo-labels come), `paper` and `paper_oracle` (Boserup and Selvan's
method, its channel chosen by the stain or by the labels), `ours`, `bundled` (the network of the
package, trained as `ours` with seed 0), `network_alone` (`ours` without the stain map), and ours
with a part left out. Trained networks are kept in --cache and used again.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from pathencoder import metrics
from pathencoder.errors import ConfigError, PathEncoderError
from training.evaluation import shared_options
from training.evaluation.nuclei import (
    ALONE,
    ARMS,
    BUNDLED,
    PAPER,
    PLAIN,
    SETS,
    NucleiSet,
    Row,
    rows_of,
    summary,
)
from training.files import write_text

ROWS = (*PLAIN, BUNDLED, *PAPER, ALONE, *ARMS)


@click.command(
    help=f"{__doc__}\n\nLearned rows are trained on the images of monuseg/train, never on a label."
)
@shared_options.data_folder("Folder of the sets.", "../shared/data/nuclei")
@click.option(
    "--rows",
    default="otsu,stain,paper,paper_oracle,ours",
    show_default=True,
    help=f"Of {', '.join(ROWS)}.",
)
@shared_options.chosen_sets(",".join(s.name for s in SETS))
@shared_options.seeds("Trainings of each network.", 5)
@shared_options.cache_folder("runs/nuclei", "Trained networks.")
@shared_options.json_file("every image's figures")
def nuclei(data: Path, rows: str, chosen: str, seeds: int, cache: Path, out: Path | None) -> None:
    """Compare label-free nuclei."""
    try:
        names = _known(rows, ROWS, "row")
        wanted = _known(chosen, [s.name for s in SETS], "set")
        sets = [s for s in SETS if s.name in wanted]
        results = {s.name: {n: rows_of(n, s, data, cache, seeds) for n in names} for s in sets}
        for each in sets:
            click.echo("\n".join(table(each, results[each.name])))
        if out:
            write_text(out, json.dumps(results) + "\n")
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def _known(text: str, known: tuple[str, ...] | list[str], what: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--{what}s: no {what} {unknown}; there are {', '.join(known)}")
    return names


def table(chosen: NucleiSet, results: dict[str, list[list[Row]]]) -> list[str]:
    """The table of one set as Markdown.

    Args:
        chosen: The set.
        results: Name of a row to its figures, [seeds][images].

    Returns:
        Lines: mean and standard deviation over seeds, the interval of AJI over images, and the
        difference to the row `stain` with its interval, where that row is there.
    """
    columns = (
        ("Dice", "AJI", "PQ", "F1")
        if chosen.radius is None
        else ("F1", "precision", "recall", "positive error")[: 3 + chosen.stained]
    )
    lines = [f"\n### {chosen.name} ({len(next(iter(results.values()))[0])} images)"]
    lines.append(f"| row | {' | '.join(columns)} | AJI, 95 % over images | less `stain` |")
    lines.append("|---" * (len(columns) + 3) + "|")
    for name, seeds in results.items():
        figures = np.array([summary(chosen, rows) for rows in seeds])
        spread = figures.std(0, ddof=min(1, len(seeds) - 1))
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(figures.mean(0), spread, strict=True)]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {_interval(chosen, seeds)} |"
            f" {_difference(chosen, seeds, results.get('stain'))} |"
        )
    return lines


def _interval(chosen: NucleiSet, seeds: list[list[Row]]) -> str:
    """The interval of AJI over images, each the mean of its seeds."""
    if chosen.radius is not None:
        return ""
    found = metrics.paired_difference(np.mean(seeds, 0)[:, 1], np.zeros(len(seeds[0])))
    return f"{found.low:.4f} to {found.high:.4f}"


def _difference(chosen: NucleiSet, seeds: list[list[Row]], base: list[list[Row]] | None) -> str:
    if base is None or chosen.radius is not None or seeds is base:
        return ""
    mean, floor = np.mean(seeds, 0), np.array(base[0])
    found = [metrics.paired_difference(mean[:, k], floor[:, k]) for k in (0, 1)]
    return "; ".join(
        f"{n} {d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"
        for n, d in zip(("Dice", "AJI"), found, strict=True)
    )
