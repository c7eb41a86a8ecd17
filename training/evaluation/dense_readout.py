"""The dense protocol as a readout of a plan: linear decoders on frozen maps, on train parts.

Each cell's scores lie beside its outcomes; the table shows means over training seeds, and paired
differences with intervals over groups.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.evaluation import dense as protocol
from training.evaluation.annotations import Picture
from training.evaluation.dense import SETS, Score
from training.evaluation.dense_table import Runs, interval, scores_of
from training.evaluation.encoders import Subject
from training.evaluation.plan import Plan
from training.files import write_text

UNKNOWN = "not here"  # a difference for which one side's outcomes are missing
_FEW = 4  # images that a rehearsal evaluates, of different groups
_BY_NAME = {s.name: s for s in SETS}


def line_name(name: str) -> str:
    """What results.jsonl calls a dense set: some have the name of a set of the probe."""
    return f"dense {name}"


def evaluate_dense(
    plan: Plan, subject: Subject, name: str, kept: Path, *, few: bool = False
) -> dict[str, Any]:
    """Evaluate an encoder on a dense set.

    Args:
        plan: Its data, cache and seeds are used.
        subject: The encoder.
        name: Of the set.
        kept: The folder in which the scores of every image are kept.
        few: On a few images, as in a rehearsal.

    Returns:
        The figures of the line of results.jsonl.

    Raises:
        PathEncoderError: The set cannot be read, or the folder cannot be written.
    """
    s, seeds = _BY_NAME[name], plan.probe_seeds
    if few:
        pictures = _few(protocol.pictures_of(s, plan.data, choose=True))
        encoder = subject.for_maps()
        runs = protocol.evaluate(encoder, s, pictures, choose=True, seeds=range(seeds)).scores
    else:
        runs = scores_of(subject, s, data=plan.data, cache=plan.cache, choose=True, seeds=seeds)
    text = json.dumps([[dataclasses.asdict(x) for x in run] for run in runs])
    write_text(kept / f"dense-{name}.json", text)
    values = [protocol.mean_score(s, run) for run in runs]
    return {"set": line_name(name), "score": round(float(np.mean(values)), 4)}


def print_dense(
    out: Path,
    names: Sequence[str],
    results: Mapping[str, Mapping[str, list[dict[str, Any]]]],
    against: Mapping[str, str],
) -> None:
    """Print the scores of every arm that has them, and differences to other arms.

    Args:
        out: The plan's folder.
        names: The dense sets.
        results: Arm -> set -> one line a seed, as `read_results` gives them.
        against: Arm -> the arm that it is compared with, if both are here.
    """
    found = {
        arm: by_set
        for arm, by_set in results.items()
        if all(line_name(name) in by_set for name in names)
    }
    if not names or not found:
        return
    click.echo(
        "frozen dense features, linear decoder: Dice of masks, F1 of points, folds of train parts,"
        " mean over training seeds ± sd"
    )
    click.echo(f"{'arm':22s}{'seeds':>6s}" + "".join(f"{n[:16]:>18s}" for n in [*names, "mean"]))
    for arm, by_set in found.items():
        columns = [np.array([x["score"] for x in by_set[line_name(name)]]) for name in names]
        texts = [*map(_text, columns), f"{np.mean([c.mean() for c in columns]):.3f}"]
        click.echo(f"{arm:22s}{len(columns[0]):6d}" + "".join(f"{t:>18s}" for t in texts))
    pairs = {arm: against[arm] for arm in found if against.get(arm) in found}
    if pairs:
        click.echo("their differences, with 95 % intervals over groups")
    for arm, base in pairs.items():
        cells = []
        for name in names:
            sides = (_runs(out, found[a][line_name(name)], name) for a in (arm, base))
            try:
                d = interval(_BY_NAME[name], *sides)
            except FileNotFoundError:
                cells.append(UNKNOWN)
                continue
            cells.append(f"{d.value:+.3f} [{d.low:+.3f},{d.high:+.3f}]")
        click.echo(f"{arm[:22]:22s} - {base}: " + "".join(f"{c:>26s}" for c in cells))


def _text(values: np.ndarray) -> str:
    spread = f" ±{values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def _runs(out: Path, lines: Sequence[Mapping[str, Any]], name: str) -> Runs:
    """The scores of all training and probe seeds of an arm."""
    files = [out / "outcomes" / line["cell"] / f"dense-{name}.json" for line in lines]
    kept = [run for file in files for run in json.loads(file.read_text(encoding="utf-8"))]
    return [[Score(**x) for x in run] for run in kept]


def _few(pictures: Sequence[Picture]) -> list[Picture]:
    first = {picture.group: picture for picture in reversed(pictures)}
    return list(first.values())[:_FEW]
