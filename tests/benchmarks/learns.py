"""Does each method learn? Every method beside its own control at learning rate zero.

    python -m tests.benchmarks.learns [--minutes M] [--table]

BatchNorm statistics settle in any run, and k-NN rises with them. The control is the same run (seed,
crops, steps) at learning rate zero, in which nothing else happens; a method learns by as much as it
is ahead of it. Runs training/plans/learns.yaml (needs the corpus and the labelled sets) and prints
AUROC and 20-NN (balanced accuracy) on train parts, by folds over groups, and the differences with
their 95 % intervals over groups, for each set and for the mean of the sets. Ends with one line of
JSON. The same command continues a stopped one.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics
from training import experiments
from training.evaluation.experiments_table import Results, read_results
from training.evaluation.outcomes import Outcome, load_outcomes
from training.evaluation.probe import BOOTSTRAPS, auroc

PLAN = Path("training/plans/learns.yaml")
CONTROL = "_control"
MEAN = "mean of the sets"
Rows = NDArray[np.int64]
Sides = list[list[Outcome]]  # of a method, of its control


def of_probe(o: Outcome, i: Rows) -> float:
    """AUROC of the linear probe on some rows; NaN unless all classes are among them."""
    return auroc(o.y[i], o.probability[i])


def of_neighbours(o: Outcome, i: Rows) -> float:
    """Balanced accuracy of 20 nearest neighbours on some rows."""
    return metrics.balanced_accuracy(o.y[i], o.neighbours[i])


FIGURES: dict[str, Callable[[Outcome, Rows], float]] = {"auroc": of_probe, "knn20": of_neighbours}


def control_of(plan: experiments.Plan, arm: str) -> str | None:
    """The control of an arm: that of its name, or of NAME where it is NAME_fast (other rates)."""
    names = (arm + CONTROL, arm.rpartition("_")[0] + CONTROL)
    return None if arm.endswith(CONTROL) else next((n for n in names if n in plan.arms), None)


def outcomes_of(results: Results, folder: Path, arms: tuple[str, str], name: str) -> Sides:
    """The outcomes of an arm and of its control on a set, of the seeds that both have."""
    sides = [results[a][name] for a in arms]
    seeds = set.intersection(*({line["seed"] for line in side} for side in sides))
    files = [
        [folder / "outcomes" / line["cell"] / f"{name}.npz" for line in side]
        for side in (
            sorted((line for line in side if line["seed"] in seeds), key=lambda x: x["seed"])
            for side in sides
        )
    ]
    return [[o for file in side for o in load_outcomes(file)] for side in files]


def differences(
    sides: Sides, figure: Callable[[Outcome, Rows], float], seed: int
) -> tuple[list[float], NDArray[np.float64]]:
    """The means of a figure of both sides, and draws of their difference over groups."""
    first, drawn = sides[0][0], []

    def difference(i: Rows) -> float:
        ours, theirs = (float(np.mean([figure(o, i) for o in side])) for side in sides)
        drawn.append(ours - theirs)
        return ours - theirs

    metrics.grouped_bootstrap(
        difference, first.groups.tolist(), labels=first.y, draws=BOOTSTRAPS, seed=seed
    )
    everything = np.arange(len(first.y))
    means = [float(np.mean([figure(o, everything) for o in side])) for side in sides]
    return means, np.array(drawn[:-1])  # the last is that of all rows


def compare(plan: experiments.Plan, results: Results, arm: str, control: str) -> dict[str, object]:
    """One method beside its control: means, and differences with their intervals."""
    row: dict[str, object] = {"method": arm}
    sides = {n: outcomes_of(results, plan.out, (arm, control), n) for n in plan.sets}
    row["seeds"] = len(next(iter(sides.values()))[0]) // plan.probe_seeds
    for label, figure in FIGURES.items():
        found = {
            name: differences(both, figure, seed) for seed, (name, both) in enumerate(sides.items())
        }
        # the sets are independent: their draws are paired as they come
        least = min(len(drawn) for _, drawn in found.values())
        found[MEAN] = (
            [float(np.mean([means[k] for means, _ in found.values()])) for k in (0, 1)],
            np.mean([drawn[:least] for _, drawn in found.values()], 0),
        )
        row[label] = {
            name: [*means, means[0] - means[1], *np.quantile(drawn, [0.025, 0.975])]
            for name, (means, drawn) in found.items()
        }
    return row


def main() -> None:
    """Train, read and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    plan = experiments.read_plan(PLAN)
    if not options.table:
        left = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        experiments.run(plan, deadline=left)
    results = read_results(plan.out)
    pairs = [(arm, control_of(plan, arm)) for arm in plan.arms if arm in results]
    rows = [compare(plan, results, arm, c) for arm, c in pairs if c and c in results]
    print("| method | seeds | figure | set | method | control | difference, 95 % |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        for label in FIGURES:
            for name, (ours, theirs, value, low, high) in row[label].items():
                print(
                    f"| {row['method']} | {row['seeds']} | {label} | {name} | {ours:.3f} |"
                    f" {theirs:.3f} | {value:+.3f} ({low:+.3f} to {high:+.3f}) |"
                )
    print(json.dumps(rows, default=float))


if __name__ == "__main__":
    main()
