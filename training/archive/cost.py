"""What a pretraining costs: operations of a tile, GPU-hours, published runs, tables of prices.

docs/archive.md has the formulas. Prices and speeds of GPUs are in training/plans/prices.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError

PRICES = Path(__file__).parents[1] / "plans" / "prices.toml"
_OPTIONAL = ("hour", "egress_tb")  # prices that a table may leave out
_STUDENT, _TEACHER = 3, 1  # passes of each crop: forward and backward (twice as much), forward


@dataclass(frozen=True)
class Model:
    """A ViT, as far as its cost goes.

    Attributes:
        parameters: Of all blocks.
        depth: Number of blocks.
        width: Channels.
        patch: Pixels of a patch's side.
        drop_path: Share of the student's blocks that are skipped in training.
        registers: Tokens beside the patches and the class token.
    """

    parameters: float
    depth: int
    width: int
    patch: int
    drop_path: float
    registers: int = 0


MODELS = {
    "vit_small": Model(21.3e6, 12, 384, 16, 0.1, 4),
    "vit_base": Model(85.1e6, 12, 768, 16, 0.3, 4),
    "vit_large": Model(302.3e6, 24, 1024, 16, 0.3, 4),
    "vit_large_14": Model(302.3e6, 24, 1024, 14, 0.4),
    "vit_huge_14": Model(630e6, 32, 1280, 14, 0.4, 4),
    "vit_giant_14": Model(1133e6, 40, 1536, 14, 0.4),
    "vit_giant_14_reg4": Model(1133e6, 40, 1536, 14, 0.4, 4),
}


@dataclass(frozen=True)
class Crops:
    """The crops of one tile.

    Attributes:
        large: Side in pixels of the global crops, which student and teacher see.
        small: Of the local ones, which the student alone sees.
        locals: How many local crops.
        globals: How many global ones.
        recomputed: Activations are computed again in the backward pass, to save memory.
    """

    large: int = 224
    small: int = 98
    locals: int = 8
    globals: int = 2
    recomputed: bool = False


CROPS = Crops()


@dataclass(frozen=True)
class Published:
    """A published run.

    Attributes:
        name: Of the run.
        model: In MODELS.
        samples: Tiles or images over the whole run.
        gpu: In prices.toml.
        hours: GPU-hours; None where none are published.
        crops: Its crops.
        where: Where the numbers are from.
    """

    name: str
    model: Model
    samples: float
    gpu: str
    hours: float | None
    crops: Crops = CROPS
    where: str = ""


RUNS = (
    Published(
        "OpenMidnight",
        MODELS["vit_giant_14_reg4"],
        384 * 250e3,
        "h100",
        576,
        where="its README: 8 x H100, 72 h, 250,000 steps of 384 (its config stops at 137,500)",
    ),
    Published(
        "DINOv2 ViT-g/14",
        MODELS["vit_giant_14"],
        3072 * 625e3,
        "a100",
        22_000,
        where="its model card: the efficiency of the A100 is fitted to this run",
    ),
    Published(
        "DINOv2 ViT-L/14, ImageNet-22k",
        MODELS["vit_large_14"],
        3072 * 625e3,
        "a100",
        96 * 3.3 * 24,
        where="its README: 96 x A100, 3.3 days",
    ),
    Published(
        "DINOv2 ViT-L/16, ImageNet-1k",
        Model(302.3e6, 24, 1024, 16, 0.3),
        2048 * 125e3,
        "a100",
        32 * 24,
        Crops(small=96),
        where="its README: 32 x A100, about a day",
    ),
    Published(
        "Phikon-v2",
        Model(302.3e6, 24, 1024, 16, 0.3),
        4096 * 250e3,
        "v100",
        11_000,
        Crops(small=96),
        where="its paper: 128 x V100; drop path not stated, taken as DINOv2's",
    ),
    Published(
        "Virchow2",
        MODELS["vit_huge_14"],
        2e9,
        "v100",
        None,
        where="512 x V100, batch 4096, 2e9 tiles; no time is published",
    ),
)


def flops_of_sample(model: Model, crops: Crops) -> float:
    """Floating point operations of one tile in a step of DINO.

    A forward pass of T tokens costs 2 T N for N parameters and 4 T^2 L D for the attention of L
    blocks of width D. The student sees all crops, forward and backward (3 passes; 4 where
    activations are recomputed), but for the blocks that drop path skips; the teacher sees the
    global crops (1 pass). The projection heads are left out: about 1 %.
    """
    extra = 1 + model.registers
    large = (crops.large // model.patch) ** 2 + extra
    small = (crops.small // model.patch) ** 2 + extra

    def forward(tokens: int) -> float:
        return 2 * tokens * model.parameters + 4 * tokens**2 * model.depth * model.width

    student = crops.globals * forward(large) + crops.locals * forward(small)
    passes = _STUDENT + crops.recomputed
    teacher = _TEACHER * crops.globals * forward(large)
    return passes * student * (1 - model.drop_path) + teacher


def gpu_hours(model: Model, crops: Crops, samples: float, gpu: Mapping[str, Any]) -> float:
    """GPU-hours of a run: operations / (peak x efficiency)."""
    speed = float(gpu["tflops"]) * 1e12 * float(gpu["efficiency"])
    return samples * flops_of_sample(model, crops) / speed / 3600


def read_prices(file: Path) -> dict[str, Any]:
    """A table of prices.

    Raises:
        ConfigError: It cannot be read, or lacks something; the message says what.
    """
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: no table of prices that can be read ({error})") from error
    problems = [f"{name} is missing" for name in ("date", "source") if name not in found]
    for kind, numbers in (
        ("storage", ("tb_month", "egress_tb")),
        ("gpu", ("hour", "tflops", "efficiency")),
    ):
        for name, row in found.get(kind, {}).items():
            problems += [
                f"{kind}.{name}.{key} must be a number from 0"
                for key in numbers
                if not _is_number(row.get(key, 0 if key in _OPTIONAL else None))
            ]
        if not found.get(kind):
            problems.append(f"there is no [{kind}.NAME]")
    if not _is_number(found.get("overhead", {}).get("share")):
        problems.append("overhead.share must be a number")
    if problems:
        raise ConfigError(f"{file}: {'; '.join(problems)}. Compare it with {PRICES.name}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def published_over_formula(prices: Mapping[str, Any]) -> tuple[float, float]:
    """The smallest and the largest ratio of published GPU-hours to those of the formula."""
    found = [
        run.hours / gpu_hours(run.model, run.crops, run.samples, prices["gpu"][run.gpu])
        for run in RUNS
        if run.hours and run.gpu in prices["gpu"]
    ]
    return (min(found), max(found)) if found else (1.0, 1.0)
