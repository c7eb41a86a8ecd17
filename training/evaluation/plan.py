"""Plans of training.experiments: their arms, and the encoders that they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pathencoder.errors import ConfigError
from training import config as run_config
from training.bounds import one_of
from training.evaluation.dense import SETS
from training.evaluation.plan_runs import folder_for

REHEARSED = 2  # steps of each arm of a rehearsal


def _dense_set(name: str) -> str:
    return one_of(name, [s.name for s in SETS])


class Arm(BaseModel):
    """One way of training (`recipe` and `set`), or of exporting what another arm trained (`of`).

    Attributes:
        recipe: The plan's, if none.
        set: key=value settings that replace those of the recipe.
        of: Other arms whose weights are exported again; several for a soup.
        start_share: Share of the starting weights in the export.
        embedding: The embedding rule of the export; the first run's own, if none.
        soup: Average the weights of all seeds of the arms in `of`: one encoder, not one a seed.
        seeds: The plan's, if none.
        core_minutes: The plan's, if none.
        steps: The plan's, if none.
        against: The arm that the table compares it with; the first one, if none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: Path | None = None
    set: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    start_share: float = Field(default=0.0, ge=0, lt=1)
    embedding: str | None = None
    soup: bool = False
    seeds: tuple[int, ...] | None = None
    core_minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    against: str | None = None

    @field_validator("of", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _several_are_averaged(self) -> Arm:
        if len(self.of) > 1 and not self.soup:
            raise ValueError("several arms in `of` can only be averaged: set soup: true")
        return self


class Plan(BaseModel):
    """Arms, and how they are evaluated.

    Attributes:
        out: Folder of the runs and results.
        recipe: Of arms that name none.
        set: key=value settings that replace those of the recipe, in arms that name no recipe.
        core_minutes: CPU time of an arm.
        steps: Steps of an arm; they count where both are given.
        seeds: Training seeds.
        sets: Sets of the probe.
        dense: Sets of the dense protocol, for linear decoders on frozen maps (dense.py).
        probe_seeds: Seeds of the probe.
        data: Folder with tiles/, and nuclei/ for dense sets.
        cache: Folder of cut cells and outcomes.
        baselines: Encoders of `training.evaluate probe` that are evaluated too.
        run: run.KEY=VALUE settings of this machine, for every arm.
        arms: The arms by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    out: Path
    recipe: Path
    set: tuple[str, ...] = ()
    core_minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ("amibr", "crchisto", "consep20x_points", "crc_polyp5")
    dense: tuple[Annotated[str, AfterValidator(_dense_set)], ...] = ()
    probe_seeds: int = Field(default=1, ge=1)
    data: Path = Path("../shared/data")
    cache: Path = Path("runs/probe")
    baselines: tuple[str, ...] = ("imagenet",)
    run: tuple[str, ...] = ()
    arms: dict[str, Arm]

    @model_validator(mode="after")
    def _has_a_length(self) -> Plan:
        if not (self.core_minutes or self.steps):
            raise ValueError("how long is an arm trained? Give core_minutes or steps")
        if wrong := [item for item in self.run if not item.startswith("run.")]:
            raise ValueError(
                f"{wrong}: only settings of run., which change no result, can be set for every arm"
            )
        return self


@dataclass(frozen=True)
class Cell:
    """One encoder that is trained or averaged, and evaluated.

    Attributes:
        arm: Name of the arm or of the baseline.
        seed: Of the training; -1 for an average of all seeds, or a baseline.
    """

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and key in the results: the arm, and its seed if it has one."""
        return self.arm if self.seed < 0 else f"{self.arm}-s{self.seed}"


def with_root(plan: Plan, root: str | None) -> Plan:
    """The same plan on other tiles, whose results lie in a folder of their own.

    It is named after the root's last part; where that folder is of another root, with a digest.

    Args:
        plan: Of arms whose recipe is the plan's.
        root: A folder of tiles or shards, or a URL; None: those of the recipe.
    """
    if root is None:
        return plan
    out = folder_for(plan.out.with_name(f"{plan.out.name}-{Path(root).name}"), root)
    return plan.model_copy(update={"out": out, "set": (*plan.set, f"data.root={root}")})


def rehearsal(plan: Plan) -> Plan:
    """A plan of two steps an arm and one seed, with results in a folder of its own.

    It shows that tiles, sets, training, export and evaluation work, before the plan takes days.
    """
    arms = {
        name: arm.model_copy(
            update={
                "steps": None,
                "seeds": None,
                "core_minutes": None,
                "set": (*arm.set, "optim.warmup=1"),
            }
        )
        for name, arm in plan.arms.items()
    }
    return plan.model_copy(
        update={
            "out": plan.out.with_name(f"{plan.out.name}-rehearsal"),
            "seeds": plan.seeds[:1],
            "steps": REHEARSED,
            "arms": arms,
        }
    )


def read_plan(file: Path, machine: Sequence[str] = ()) -> Plan:
    """Read and check a plan.

    Args:
        file: The plan, as YAML.
        machine: run.KEY=VALUE settings of this machine, for every arm.

    Returns:
        The plan.

    Raises:
        ConfigError: An unknown key, a wrong value, an arm of an arm that is missing, or a recipe
            that is not valid.
    """
    values = _mapping(file) | ({"run": machine} if machine else {})
    try:
        plan = Plan.model_validate(values)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{file}: {'; '.join(faults)}") from None
    for name, arm in plan.arms.items():
        if not arm.of:
            run_config.load(
                arm.recipe or plan.recipe, [*settings_of(plan, arm), f"out={plan.out / name}"]
            )
        for other in arm.of:
            if other not in plan.arms or plan.arms[other].of:
                raise ConfigError(
                    f"{file}: arm {name!r} is of {other!r}, which is not an arm that trains"
                )
        if arm.against is not None and (arm.against == name or arm.against not in plan.arms):
            raise ConfigError(f"{file}: arm {name!r} is against {arm.against!r}: name another arm")
    return plan


def _mapping(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no settings: it needs at least out, recipe and arms")
    return values


def chosen_arms(plan: Plan, arms: str | None) -> Plan:
    """The plan with some of its arms, and those whose weights they use.

    Args:
        plan: The plan.
        arms: Names joined by commas; None: all.

    Returns:
        The smaller plan.

    Raises:
        ConfigError: The plan has no such arm.
    """
    wanted = frozenset(arms.split(",")) if arms else frozenset(plan.arms)
    if unknown := wanted - plan.arms.keys():
        raise ConfigError(f"--arms: no arm {sorted(unknown)}; the plan has {sorted(plan.arms)}")
    wanted |= {other for name in wanted for other in plan.arms[name].of}
    return plan.model_copy(
        update={"arms": {name: arm for name, arm in plan.arms.items() if name in wanted}}
    )


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers joined by commas, as of --seeds. Raises ConfigError for anything else."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--seeds {text!r}: give numbers joined by commas")
    return tuple(int(n) for n in text.split(","))


def cells(plan: Plan) -> Iterator[Cell]:
    """Trained arms before those that use their weights, one seed after the other; soups last."""
    for seed in plan.seeds:
        alone = [
            (name, arm)
            for name, arm in plan.arms.items()
            if not arm.soup and seed in seeds_of(plan, name)
        ]
        yield from (Cell(name, seed) for name, arm in alone if not arm.of)
        yield from (Cell(name, seed) for name, arm in alone if arm.of)
    yield from (Cell(name, -1) for name, arm in plan.arms.items() if arm.soup)


def settings_of(plan: Plan, arm: Arm) -> list[str]:
    """The key=value settings of an arm, with those of the plan where it has no own recipe."""
    return [*arm.set] if arm.recipe else [*plan.set, *arm.set]


def seeds_of(plan: Plan, name: str) -> tuple[int, ...]:
    """The training seeds of an arm."""
    own = plan.arms[name].seeds
    return plan.seeds if own is None else own
