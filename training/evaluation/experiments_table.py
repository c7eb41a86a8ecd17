"""The table of a plan's results.

Means and standard deviations over seeds, and each arm against another one, paired over groups.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.evaluation.dense_readout import UNKNOWN, print_dense
from training.evaluation.outcomes import load_outcomes
from training.evaluation.probe import paired_auroc

Results = dict[str, dict[str, list[dict[str, Any]]]]  # arm -> set -> one line a seed


def print_table(
    out: Path,
    sets: Sequence[str],
    against: Mapping[str, str] | None = None,
    dense: Sequence[str] = (),
) -> None:
    """Print the AUROC of every arm on train parts, and differences to other arms.

    With dense sets also the scores of linear decoders.

    Args:
        out: The plan's folder.
        sets: The sets that are shown; "-" where an arm has not been evaluated on one yet.
        against: Arm -> the arm that it is compared with; the first trained arm, if it is not here.
            A difference needs the outcomes of both, which lie where the arms were evaluated.
        dense: The dense sets that are shown.
    """
    results = read_results(out)
    if not results:
        click.echo("no cell has been evaluated yet")
        return
    head = "".join(f"{n[:16]:>24s}" for n in [*sets, "mean"])
    click.echo(
        "AUROC (k-NN 20), mean over training seeds ±"
        f" sd\n{'arm':22s}{'seeds':>6s}{head}{'cosine':>9s}{'rank':>7s}"
    )
    for arm, by_set in results.items():
        rows, shift = [_mean_text(by_set[n]) for n in sets], by_set["stain shift"]
        whole = all(by_set[n] for n in sets)
        means = [_column(by_set[n], "auroc").mean() for n in sets if whole]
        rows.append(f"{np.mean(means):.3f}" if whole else "-")
        tail = f"{_column(shift, 'centred_cosine').mean():9.3f}{_column(shift, 'rank').mean():7.0f}"
        click.echo(f"{arm:22s}{len(shift):6d}" + "".join(f"{r:>24s}" for r in rows) + tail)
    first = next((a for a, by_set in results.items() if _is_trained(by_set)), None)
    pairs = {
        arm: base for arm in results if (base := (against or {}).get(arm, first)) and base != arm
    }
    _print_differences(out, results, sets, pairs)
    print_dense(out, dense, results, pairs)


def read_results(out: Path) -> Results:
    """The lines of results.jsonl, arms in the order in which they were first evaluated."""
    results: Results = defaultdict(lambda: defaultdict(list))
    file = out / "results.jsonl"
    for line in map(json.loads, file.read_text().splitlines() if file.exists() else []):
        results[line["arm"]][line["set"]].append(line)
    return results


def _print_differences(
    out: Path, results: Results, sets: Sequence[str], pairs: Mapping[str, str]
) -> None:
    said = False
    for arm, base in pairs.items():
        if base not in results:
            continue
        if not said:
            click.echo("differences of AUROC, with 95 % intervals over groups")
            said = True
        cells = []
        for s in sets:
            if not (results[arm][s] and results[base][s]):
                cells.append("-")
                continue
            sides = (
                [load_outcomes(out / "outcomes" / line["cell"] / f"{s}.npz") for line in lines]
                for lines in (results[arm][s], results[base][s])
            )
            try:
                found = paired_auroc(*sides)
            except FileNotFoundError:
                cells.append(UNKNOWN)
                continue
            cells.append(f"{found.value:+.3f} [{found.low:+.3f},{found.high:+.3f}]")
        click.echo(f"{arm[:22]:22s} - {base}: " + "".join(f"{c:>26s}" for c in cells))


def _is_trained(by_set: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether an arm was trained here: baselines and averages have no seed."""
    return any(line["seed"] >= 0 for lines in by_set.values() for line in lines)


def _column(lines: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([line[key] for line in lines])


def _mean_text(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return "-"
    a = _column(lines, "auroc")
    spread = f" ±{a.std(ddof=1):.3f}" if len(a) > 1 else ""
    return f"{a.mean():.3f}{spread} ({_column(lines, 'knn20').mean():.3f})"
