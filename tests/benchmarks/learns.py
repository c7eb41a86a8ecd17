"""Does each method learn? Every method beside its own control at learning rate zero.

    python -m tests.benchmarks.learns [--minutes M] [--table]

BatchNorm statistics settle in any run, and k-NN rises with them. The control is the same run (seed,
crops, steps) at learning rate zero, in which nothing else happens; a method learns by as much as it
is ahead of it. Runs training/plans/learns.yaml (needs the corpus and the labelled sets) and prints
AUROC and 20-NN on train parts, by folds over groups, and the difference with its 95 % interval over
groups. Ends with one line of JSON. The same command continues a stopped one.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np

from training import experiments
from training.evaluation.experiments_table import Results, read_results
from training.evaluation.outcomes import load_outcomes
from training.evaluation.probe import paired_auroc

PLAN = Path("training/plans/learns.yaml")
CONTROL = "_control"


def compare(plan: experiments.Plan, results: Results, arm: str) -> dict[str, object]:
    """One method beside its control: a mean and a difference with its interval, for each set."""
    row: dict[str, object] = {"method": arm}
    for name in plan.sets:
        sides = [results[a][name] for a in (arm, arm + CONTROL)]
        seeds = set.intersection(*({line["seed"] for line in side} for side in sides))
        runs = [
            [
                load_outcomes(plan.out / "outcomes" / line["cell"] / f"{name}.npz")
                for line in side
                if line["seed"] in seeds
            ]
            for side in sides
        ]
        difference, (low, high) = paired_auroc(*runs)
        row[name] = {
            "seeds": len(seeds),
            "auroc": [round(float(np.mean([x["auroc"] for x in side])), 3) for side in sides],
            "knn20": [round(float(np.mean([x["knn20"] for x in side])), 3) for side in sides],
            "difference": [round(v, 3) for v in (difference, low, high)],
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
    both = [a for a in plan.arms if a in results and a + CONTROL in results]
    rows = [compare(plan, results, arm) for arm in both]
    print(f"{'method':18s}{'set':16s}{'seeds':>6s}{'AUROC':>8s}{'control':>8s}{'20-NN':>8s}"
          f"{'control':>8s}   difference of AUROC, 95 %")  # fmt: skip
    for row in rows:
        for name in plan.sets:
            found = row[name]
            value, low, high = found["difference"]
            figures = "".join(f"{v:8.3f}" for v in (*found["auroc"], *found["knn20"]))
            print(f"{row['method']:18s}{name:16s}{found['seeds']:6d}{figures}"
                  f"   {value:+.3f} [{low:+.3f}, {high:+.3f}]")  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
