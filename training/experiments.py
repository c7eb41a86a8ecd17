"""Compare many short runs.

python -m training.experiments PLAN.yaml [--minutes M] [--table] [--arms A,B] [--set run.KEY=VALUE]
[--train [--seeds 0,1]] [--root TILES] [--rehearse]

Every arm of a plan is trained with every seed for the same CPU time (or number of steps, as on a
GPU), exported, and probed on train parts alone (folds by group); with `dense`, linear decoders on
frozen maps are evaluated too. Each arm, seed and set gives one line of results.jsonl. What is there
is not computed again, so that a plan can run for days in pieces; where the plan has changed the
settings of a run that is there, it stops and names them. Several processes may work on different
arms. With --train they leave the probing to a later call, possibly on another machine,
which needs the folders of the runs without the weights in checkpoints/. --rehearse goes through all
of it with two steps an arm and a few images of each set: its figures mean nothing.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from pathencoder.locks import Lock
from pathencoder.pretrained.folder import CONFIG
from training.evaluate import outcomes
from training.evaluation import robustness
from training.evaluation.dense_readout import evaluate_dense, line_name
from training.evaluation.encoders import Subject, open_subject
from training.evaluation.experiments_table import print_table
from training.evaluation.outcomes import save_outcomes
from training.evaluation.plan import (
    Cell,
    Plan,
    cells,
    chosen_arms,
    numbers,
    read_plan,
    rehearsal,
    seeds_of,
    settings_of,
    with_root,
)
from training.evaluation.plan_runs import changed_settings, refuse
from training.evaluation.probe import auroc, balanced
from training.evaluation.sets import ProbeSet, few_of, open_sets
from training.files import append_text, write_text
from training.monitor.log import read_log
from training.publishing.average import reexport, steps_of
from training.trainer.export import STOPPED

log = logging.getLogger("training")
_WAIT = 60.0  # seconds for another process that writes its rate
_TRIAL = 16  # steps by which the time of a step is measured
_COLD = 4  # of these, the first ones are left out
_FEW = 25  # images of a class that a rehearsal probes
_SHIFTED = "crc_polyp5"  # the set whose stain is shifted, where a plan has it
_SHIFT = "stain shift"  # the last line of the probe


@click.command(help=__doc__)
@click.argument("plan_file", type=click.Path(path_type=Path, exists=True))
@click.option("--minutes", type=float, help="Stop after this long; the same command resumes.")
@click.option(
    "--table", is_flag=True, help="Print the table of the results so far and do nothing else."
)
@click.option("--arms", help="Only these arms, joined by commas.")
@click.option("--train", "train_only", is_flag=True, help="Train and export; probe nothing.")
@click.option(
    "--seeds",
    help="With --train: only these, joined by commas, so that several processes can share an arm.",
)
@click.option(
    "--set", "machine", multiple=True, help="run.KEY=VALUE for every arm, such as run.loaders=4."
)
@click.option(
    "--root",
    help="data.root of the plan's recipe: the same arms on other tiles, with results in OUT-NAME.",
)
@click.option(
    "--rehearse",
    is_flag=True,
    help="Two steps an arm, one seed, a few images of each set: does everything work?",
)
def main(
    plan_file: Path,
    minutes: float | None,
    table: bool,  # noqa: FBT001
    arms: str | None,
    train_only: bool,  # noqa: FBT001
    seeds: str | None,
    machine: tuple[str, ...],
    root: str | None,
    rehearse: bool,  # noqa: FBT001
) -> None:
    """Run or show a plan."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    deadline = time.monotonic() + 60 * minutes if minutes else None
    try:
        plan = chosen_arms(with_root(read_plan(plan_file, machine), root), arms)
        plan = rehearsal(plan) if rehearse else plan
        if train_only:
            train(plan, deadline=deadline, seeds=numbers(seeds) if seeds else plan.seeds)
            return
        if seeds:
            raise ConfigError("--seeds needs --train: averages and tables are of all seeds")
        if table:
            for name, words in _changed(plan):
                log.warning("%s was trained with other settings: %s", name, ", ".join(words))
        else:
            run(plan, deadline=deadline, few=_FEW if rehearse else None)
        if rehearse:
            click.echo(f"a rehearsal of {plan_file}: the figures mean nothing")
        against = {name: arm.against for name, arm in plan.arms.items() if arm.against}
        print_table(plan.out, plan.sets, against, dense=plan.dense)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def train(plan: Plan, *, deadline: float | None = None, seeds: Sequence[int] | None = None) -> None:
    """Train and export every cell that is missing, and evaluate none.

    Args:
        plan: The plan.
        deadline: When to stop, by `time.monotonic`.
        seeds: Only these; the plan's, if none.

    Raises:
        PathEncoderError: A training fails, or the folder cannot be written.
    """
    make_folder(plan.out)
    refuse(_changed(plan), plan.out)
    for cell in cells(plan):
        if plan.arms[cell.arm].of or not (seeds is None or cell.seed in seeds):
            continue
        if _train(plan, cell, deadline) is None:
            return


def run(plan: Plan, *, deadline: float | None = None, few: int | None = None) -> None:
    """Train and evaluate every cell that is missing, seed by seed: all arms have figures early.

    Args:
        plan: The plan.
        deadline: When to stop, by `time.monotonic`.
        few: Images of each class that are probed, as in a rehearsal; None: all.

    Raises:
        PathEncoderError: A training fails, a set is missing, or the folder cannot be written.
    """
    make_folder(plan.out)
    refuse(_changed(plan), plan.out)
    sets = open_sets(plan.sets, data=plan.data, cache=plan.cache, choose=True)
    if few is not None:  # what was probed of whole sets is kept in another folder
        sets = [few_of(s, few) for s in sets]
        plan = plan.model_copy(update={"cache": plan.cache / "rehearsal"})
    for name in plan.baselines:
        for number, subject in enumerate(open_subject(name)):
            # other readouts of one network have its maps
            dense = () if number else plan.dense
            missing = _missing(plan, subject.name, dense)
            _evaluate(plan, Cell(subject.name, -1), subject, sets, missing, few=few is not None)
    for cell in cells(plan):
        if not (missing := _missing(plan, cell.name, plan.dense)):
            continue
        if deadline is not None and time.monotonic() > deadline:
            return
        folder = _trained_or_averaged(plan, cell, deadline)
        if folder is None:
            return
        subject = open_subject(str(folder))[0]
        _evaluate(plan, cell, subject, sets, missing, few=few is not None)


def _trained_or_averaged(plan: Plan, cell: Cell, deadline: float | None) -> Path | None:
    """The exported encoder of a cell; None where the deadline came first (a checkpoint is kept)."""
    arm = plan.arms[cell.arm]
    if not arm.of:
        return _train(plan, cell, deadline)
    runs = [
        plan.out / Cell(other, seed).name
        for other in arm.of
        for seed in (seeds_of(plan, other) if arm.soup else (cell.seed,))
    ]
    folder = plan.out / cell.name / "export"
    return (
        folder
        if folder.exists()
        else reexport(runs, folder, start_share=arm.start_share, embedding=arm.embedding)
    )


def _train(plan: Plan, cell: Cell, deadline: float | None) -> Path | None:
    arm, out = plan.arms[cell.arm], plan.out / cell.name
    settings = _settings_of_run(plan, cell)
    recipe = str(arm.recipe or plan.recipe)
    steps = arm.steps or plan.steps or _affordable_steps(plan, cell.arm, recipe, settings)
    if not (_is_done(out, steps)):
        left = (
            [f"minutes={max(0.1, (deadline - time.monotonic()) / 60)}"]
            if deadline is not None
            else []
        )
        _pretrain(recipe, [*settings, f"steps={steps}", f"out={out}", *left])
    return out / "export" if _is_done(out, steps) else None


def _settings_of_run(plan: Plan, cell: Cell) -> list[str]:
    """The key=value settings of a training, but its steps and folder."""
    return [
        *settings_of(plan, plan.arms[cell.arm]),
        f"seed={cell.seed}",
        "export.start_share=0",
        "run.knn_sets=[]",
        *plan.run,
    ]


def _changed(plan: Plan) -> list[tuple[str, list[str]]]:
    """Runs whose figures or export would be taken for those of other settings, and these."""
    found = []
    for cell in cells(plan):
        arm, out = plan.arms[cell.arm], plan.out / cell.name
        # one that has not ended is resumed, and the training itself refuses other settings
        if arm.of or not (_there(plan, cell.name) or _is_done(out, 0)):
            continue
        # by its time, the steps are those that were measured
        steps = [f"steps={n}"] if (n := arm.steps or plan.steps) else []
        settings = [*_settings_of_run(plan, cell), *steps]
        words = changed_settings(out, arm.recipe or plan.recipe, settings)
        if not steps:
            words = [w for w in words if not w.startswith("optim.steps ")]
        if words:
            found.append((cell.name, words))
    return found


def _is_done(out: Path, steps: int) -> bool:
    """Whether the export is of the last step.

    A run that was stopped has an export too, which says so; the run may have been resumed since,
    and ended before its own export.
    """
    described = out / "export" / CONFIG
    if steps_of(out) < steps or not described.exists():
        return False
    return STOPPED not in described.read_text(encoding="utf-8")


def _affordable_steps(plan: Plan, name: str, recipe: str, settings: list[str]) -> int:
    """How many steps fit into the arm's CPU time, by the time that a few steps took here."""
    rates = plan.out / "rates.json"
    known = _read_rates(rates)
    if name not in known:
        measured = _cpu_seconds_of_a_step(recipe, settings)
        lock = Lock(plan.out / ".rates.lock", f"{rates} is in use", seconds=_WAIT)
        try:  # another process may have measured its own arm meanwhile
            known = {name: measured, **_read_rates(rates)}
            write_text(rates, json.dumps(known, indent=1))
        finally:
            lock.release()
    # one of them is set, since the plan has no steps
    minutes = plan.arms[name].core_minutes or plan.core_minutes or 0.0
    steps = max(1, round(60 * minutes / known[name]))
    log.info("%s: %d steps of %.2f core-seconds", name, steps, known[name])
    return steps


def _read_rates(file: Path) -> dict[str, float]:
    """CPU seconds of a step by arm, as they were measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _cpu_seconds_of_a_step(recipe: str, settings: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        _pretrain(
            recipe,
            [*settings, f"steps={_TRIAL}", f"out={folder}", "run.log_every=1", "run.knn_sets=[]"],
        )
        cpu = {
            line["step"]: line["cpu_s"]
            for line in read_log(Path(folder))
            if line["kind"] == "train"
        }
    return float(cpu[_TRIAL] - cpu[_COLD]) / (_TRIAL - _COLD)


def _pretrain(recipe: str, settings: list[str]) -> None:
    """Train in a separate process: its memory, threads and random state end with it."""
    command = [sys.executable, "-m", "training.pretrain", recipe, *settings]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise ConfigError(
            f"training failed with status {done.returncode}: {' '.join(command[1:])}. The reason is"
            " in its output above"
        )


def _evaluate(
    plan: Plan,
    cell: Cell,
    subject: Subject,
    sets: list[ProbeSet],
    missing: Sequence[str],
    *,
    few: bool,
) -> None:
    """Evaluate what is missing of a cell, and append its lines."""
    if not missing:
        return
    kept = make_folder(plan.out / "outcomes" / cell.name)
    wanted = [s for s in sets if s.name in missing]
    lines = _probe(plan, subject, wanted, kept)
    if _SHIFT in missing:
        shifted = next((s for s in sets if s.name == _SHIFTED), sets[-1])
        lines.append({"set": _SHIFT, **robustness.under_shift(subject, shifted)})
    if lines:
        _append(plan, cell, subject, lines)
    for name in plan.dense:
        if line_name(name) in missing:
            line = evaluate_dense(plan, subject, name, kept, few=few)
            _append(plan, cell, subject, [line])


def _probe(plan: Plan, subject: Subject, sets: list[ProbeSet], kept: Path) -> list[dict[str, Any]]:
    """The lines of the probe, one for each set."""
    lines: list[dict[str, Any]] = []
    for s in sets:
        seeds = outcomes(subject, s, cache=plan.cache, seeds=plan.probe_seeds)
        save_outcomes(kept / f"{s.name}.npz", seeds)
        figures = {
            "auroc": _mean([auroc(o.y, o.probability) for o in seeds]),
            "linear": _mean([balanced(o) for o in seeds]),
            "knn20": _mean([balanced(o, near=True) for o in seeds]),
        }
        lines.append({"set": s.name, **figures})
    return lines


def _append(plan: Plan, cell: Cell, subject: Subject, lines: list[dict[str, Any]]) -> None:
    who = {"cell": cell.name, "arm": cell.arm, "seed": cell.seed}
    network = {"fingerprint": subject.fingerprint[:16]}
    text = "".join(json.dumps({**who, **line, **network}) + "\n" for line in lines)
    append_text(plan.out / "results.jsonl", text)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


def _missing(plan: Plan, cell: str, dense: Sequence[str]) -> list[str]:
    """The lines that results.jsonl lacks of a cell."""
    there = _there(plan, cell)
    wanted = (*plan.sets, _SHIFT, *map(line_name, dense))
    return [name for name in wanted if name not in there]


def _there(plan: Plan, cell: str) -> set[str]:
    """What results.jsonl has of a cell: names of sets, and of the other lines."""
    file = plan.out / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line["set"] for line in map(json.loads, lines) if line["cell"] == cell}


if __name__ == "__main__":
    sys.exit(main())
