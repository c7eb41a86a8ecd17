"""Many short runs compared: python -m training.experiments PLAN.yaml [--minutes M] [--table] [--arms A,B] [--set run.KEY=VALUE]
                                                       [--train [--seeds 0,1]]

Every arm of a plan is trained with every seed for the same CPU time (or number of steps, as on a GPU), exported, and probed on train
parts alone (folds by group). One line of results.jsonl for each (arm, seed, set); what is there is not done again, so a plan can run
for days in pieces. Several processes may work on arms of their own; with --train they leave the probing to a later call, elsewhere
perhaps: what that needs of a run is its folder but for the weights in checkpoints/.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pathencoder.errors import ConfigError, PathEncoderError
from training import config as run_config
from training.evaluate import outcomes
from training.evaluation import robustness
from training.evaluation.encoders import Subject, open_subject
from training.evaluation.experiments_table import print_table
from training.evaluation.probe import auroc, balanced, save_outcomes
from training.evaluation.sets import ProbeSet, open_sets
from training.files import append_text, write_text
from training.publishing.average import reexport, steps_of
from training.report import read_log

log = logging.getLogger("training")
_TRIAL = 16  # steps that tell how long a step takes; the first ones are left out
_COLD = 4
_SHIFTED = "crc_polyp5"  # the set whose stain is shifted, where a plan reads it


class Arm(BaseModel):
    """One way of training (`recipe` and `set`), or of exporting what another arm trained (`of`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: Path | None = None  # the plan's, if none
    set: tuple[str, ...] = ()  # key=value, laid over the recipe
    of: tuple[str, ...] = ()  # other arms whose weights are exported again; several: for a soup
    start_share: float = Field(0.0, ge=0, lt=1)
    embedding: str | None = None
    # average the weights of all seeds of all those arms: one encoder instead of one a seed
    soup: bool = False
    seeds: tuple[int, ...] | None = None  # the plan's, if none
    core_minutes: float | None = Field(None, gt=0)  # the plan's, if none
    steps: int | None = Field(None, ge=1)  # the plan's, if none

    @field_validator("of", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _several_are_averaged(self) -> Arm:
        if len(self.of) > 1 and not self.soup:
            raise ValueError("of several arms only an average can be made: soup: true")
        return self


class Plan(BaseModel):
    """A list of arms and what is read of them. core_minutes or steps: how long an arm is trained.

    Steps where both are given. baselines: subjects of `training.evaluate probe` shown beside.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    out: Path
    recipe: Path
    # key=value, laid over the recipe in arms without a recipe of their own
    set: tuple[str, ...] = ()
    core_minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=1)
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ("amibr", "crchisto", "consep20x_points", "crc_polyp5")
    probe_seeds: int = Field(1, ge=1)
    data: Path = Path("../shared/data")
    tools: Path = Path("../shared/tools")
    cache: Path = Path("runs/probe")
    baselines: tuple[str, ...] = ("imagenet",)
    run: tuple[str, ...] = ()  # run.KEY=VALUE of the machine at hand, laid over every arm
    arms: dict[str, Arm]

    @model_validator(mode="after")
    def _has_a_length(self) -> Plan:
        if not (self.core_minutes or self.steps):
            raise ValueError("how long is an arm trained? Give core_minutes or steps")
        if wrong := [item for item in self.run if not item.startswith("run.")]:
            raise ValueError(
                f"{wrong}: only settings of run., which change no result, may be laid over"
                " every arm"
            )
        return self


@dataclass(frozen=True)
class Cell:
    """One encoder to be made and read: an arm with one seed.

    Seed -1: of all seeds together, or a baseline.
    """

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Folder and key: arm, and the seed where there is one."""
        return self.arm if self.seed < 0 else f"{self.arm}-s{self.seed}"


@click.command(help=__doc__)
@click.argument("plan_file", type=click.Path(path_type=Path, exists=True))
@click.option("--minutes", type=float, help="Stop after this long; the same command goes on.")
@click.option("--table", is_flag=True, help="Print the table of what is there and do nothing else.")
@click.option("--arms", help="These arms alone, joined by commas.")
@click.option("--train", "train_only", is_flag=True, help="Train and export; probe nothing.")
@click.option(
    "--seeds",
    help="With --train: these alone, joined by commas, so that several processes can share an arm.",
)
@click.option(
    "--set", "machine", multiple=True, help="run.KEY=VALUE for every arm, such as run.loaders=4."
)
def main(
    plan_file: Path,
    minutes: float | None,
    table: bool,  # noqa: FBT001
    arms: str | None,
    train_only: bool,  # noqa: FBT001
    seeds: str | None,
    machine: tuple[str, ...],
) -> None:
    """Run or show a plan."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    deadline = time.monotonic() + 60 * minutes if minutes else None
    try:
        plan = _chosen(read_plan(plan_file, machine), arms)
        if train_only:
            train(plan, deadline=deadline, seeds=_numbers(seeds) if seeds else plan.seeds)
            return
        if seeds:
            raise ConfigError("--seeds goes with --train: averages and tables are of all seeds")
        if not table:
            run(plan, deadline=deadline)
        print_table(plan.out, plan.sets)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def read_plan(file: Path, machine: Sequence[str] = ()) -> Plan:
    """A checked plan, with run.KEY=VALUE of this machine.

    Raises ConfigError: unknown keys, arms of arms that are not there, recipes that do not parse.
    """
    try:
        plan = Plan.model_validate(
            {**yaml.safe_load(file.read_text()), **({"run": machine} if machine else {})}
        )
    except ValidationError as error:
        raise ConfigError(
            f"{file}: "
            + "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        ) from None
    for name, arm in plan.arms.items():
        if not arm.of:
            run_config.load(
                arm.recipe or plan.recipe, [*_settings(plan, arm), f"out={plan.out / name}"]
            )
        for other in arm.of:
            if other not in plan.arms or plan.arms[other].of:
                raise ConfigError(
                    f"{file}: arm {name!r} is of {other!r}, which is no arm that trains"
                )
    return plan


def _chosen(plan: Plan, arms: str | None) -> Plan:
    """The plan with these arms alone; arms that they are made of stay."""
    wanted = frozenset(arms.split(",")) if arms else frozenset(plan.arms)
    if unknown := wanted - plan.arms.keys():
        raise ConfigError(f"--arms: no arm {sorted(unknown)}; the plan has {sorted(plan.arms)}")
    wanted |= {other for name in wanted for other in plan.arms[name].of}
    return plan.model_copy(
        update={"arms": {name: arm for name, arm in plan.arms.items() if name in wanted}}
    )


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--seeds {text!r}: numbers joined by commas")
    return tuple(int(n) for n in text.split(","))


def train(plan: Plan, *, deadline: float | None = None, seeds: Sequence[int] | None = None) -> None:
    """Train and export every cell that is missing, of these seeds alone if given, and read nothing.

    Stops at the deadline (monotonic).
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    for cell in cells(plan):
        if plan.arms[cell.arm].of or not (seeds is None or cell.seed in seeds):
            continue
        if _train(plan, cell, deadline) is None:
            return


def run(plan: Plan, *, deadline: float | None = None) -> None:
    """Make and read every cell that is missing, seed by seed so that all arms are there early.

    Stops at the deadline (monotonic).
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    sets = open_sets(plan.sets, data=plan.data, tools=plan.tools, cache=plan.cache, choose=True)
    for name in plan.baselines:
        if not _is_read(plan, [s.name for s in open_subject(name)]):
            for subject in open_subject(name):
                _read(plan, Cell(subject.name, -1), subject, sets)
    for cell in cells(plan):
        if _is_read(plan, [cell.name]):
            continue
        if deadline is not None and time.monotonic() > deadline:
            return
        folder = _make(plan, cell, deadline)
        if folder is None:
            return
        _read(plan, cell, open_subject(str(folder))[0], sets)


def cells(plan: Plan) -> Iterator[Cell]:
    """Trained arms before those made of them, one seed after the other; soups last."""
    for seed in plan.seeds:
        alone = [
            (name, arm)
            for name, arm in plan.arms.items()
            if not arm.soup and seed in _seeds(plan, name)
        ]
        yield from (Cell(name, seed) for name, arm in alone if not arm.of)
        yield from (Cell(name, seed) for name, arm in alone if arm.of)
    yield from (Cell(name, -1) for name, arm in plan.arms.items() if arm.soup)


def _settings(plan: Plan, arm: Arm) -> list[str]:
    return [*arm.set] if arm.recipe else [*plan.set, *arm.set]


def _seeds(plan: Plan, name: str) -> tuple[int, ...]:
    own = plan.arms[name].seeds
    return plan.seeds if own is None else own


def _make(plan: Plan, cell: Cell, deadline: float | None) -> Path | None:
    """The exported encoder of a cell.

    None when time ran out before its training ended (its checkpoint stays).
    """
    arm = plan.arms[cell.arm]
    if not arm.of:
        return _train(plan, cell, deadline)
    runs = [
        plan.out / Cell(other, seed).name
        for other in arm.of
        for seed in (_seeds(plan, other) if arm.soup else (cell.seed,))
    ]
    folder = plan.out / cell.name / "export"
    return (
        folder
        if folder.exists()
        else reexport(runs, folder, start_share=arm.start_share, embedding=arm.embedding)
    )


def _train(plan: Plan, cell: Cell, deadline: float | None) -> Path | None:
    arm, out = plan.arms[cell.arm], plan.out / cell.name
    settings = [
        *_settings(plan, arm),
        f"seed={cell.seed}",
        "export.start_share=0",
        "run.knn_sets=[]",
        *plan.run,
    ]
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


def _is_done(out: Path, steps: int) -> bool:
    return (out / "export").exists() and steps_of(out) >= steps


def _affordable_steps(plan: Plan, name: str, recipe: str, settings: list[str]) -> int:
    """As many as the arm's CPU time pays for, by what a few steps took here once."""
    rates = plan.out / "rates.json"
    known: dict[str, float] = json.loads(rates.read_text()) if rates.exists() else {}
    if name not in known:
        known[name] = _cpu_seconds_of_a_step(recipe, settings)
        write_text(rates, json.dumps(known, indent=1))
    # one of them is there: the plan has no steps
    minutes = plan.arms[name].core_minutes or plan.core_minutes or 0.0
    steps = max(1, round(60 * minutes / known[name]))
    log.info("%s: %d steps of %.2f core-seconds", name, steps, known[name])
    return steps


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
    """A process of its own: its memory, threads and random state end with it."""
    command = [sys.executable, "-m", "training.pretrain", recipe, *settings]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise ConfigError(f"training failed with status {done.returncode}: {' '.join(command[1:])}")


def _read(plan: Plan, cell: Cell, subject: Subject, sets: list[ProbeSet]) -> None:
    """Append a cell's lines: one a set, and one of robustness."""
    lines: list[dict[str, Any]] = []
    kept = plan.out / "outcomes" / cell.name
    kept.mkdir(parents=True, exist_ok=True)
    for s in sets:
        seeds = outcomes(subject, s, cache=plan.cache, seeds=plan.probe_seeds)
        save_outcomes(kept / f"{s.name}.npz", seeds)
        figures = {
            "auroc": _mean([auroc(o.y, o.probability) for o in seeds]),
            "linear": _mean([balanced(o) for o in seeds]),
            "knn20": _mean([balanced(o, near=True) for o in seeds]),
        }
        lines.append(
            {"cell": cell.name, "arm": cell.arm, "seed": cell.seed, "set": s.name, **figures}
        )
    stain = robustness.under_shift(subject, next((s for s in sets if s.name == _SHIFTED), sets[-1]))
    lines.append(
        {"cell": cell.name, "arm": cell.arm, "seed": cell.seed, "set": "stain shift", **stain}
    )
    text = "".join(
        json.dumps({**line, "fingerprint": subject.fingerprint[:16]}) + "\n" for line in lines
    )
    append_text(plan.out / "results.jsonl", text)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


def _is_read(plan: Plan, names: list[str]) -> bool:
    file = plan.out / "results.jsonl"
    there = (
        {json.loads(line)["cell"] for line in file.read_text().splitlines()}
        if file.exists()
        else set()
    )
    return there.issuperset(names)


if __name__ == "__main__":
    sys.exit(main())
