r"""What a pretraining on an archive needs: storage, rates, GPU-hours, money, days.

\b
python -m training.plan --slides 110000 --model vit_large --gpus 32
python -m training.plan --check

Every number is arithmetic; docs/archive.md has the formulas. Prices and speeds of GPUs are in
training/plans/prices.toml, with a date: copy it, edit it, and give it with --prices. --check
compares the GPU-hours with those of published runs. --probe SHARDS measures reading, packing and
training on this machine, and puts in the tiles' size.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.errors import ConfigError, PathEncoderError

if TYPE_CHECKING:
    from training.archive.probe import Probe

PRICES = Path(__file__).with_name("plans") / "prices.toml"
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
    """The crops of one tile: two global ones that student and teacher see, local ones."""

    large: int = 224
    small: int = 98
    locals: int = 8


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


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Attributes:
        slides: Number of slides.
        slide_gb: Mean size of a slide in GB.
        tiles: Tiles of a slide in the shards.
        tile_kb: Mean size of a tile in the shards, in KB.
        samples: Tiles over the whole run.
        batch: Tiles of a step.
        gpus: GPUs of the run.
        months: For which storage is paid.
    """

    slides: int = 110_000
    slide_gb: float = 1.14
    tiles: int = 2_400
    tile_kb: float = 17.0
    samples: float = 400e6
    batch: int = 3_072
    gpus: int = 32
    months: float = 6.0


def flops_of_sample(model: Model, crops: Crops) -> float:
    """Floating point operations of one tile in a step of DINO.

    A forward pass of T tokens costs 2 T N for N parameters and 4 T^2 L D for the attention of L
    blocks of width D. The student sees all crops, forward and backward (3 passes), but for the
    blocks that drop path skips; the teacher sees the two global crops (1 pass). The projection
    heads are left out: about 1 %.
    """
    extra = 1 + model.registers
    large = (crops.large // model.patch) ** 2 + extra
    small = (crops.small // model.patch) ** 2 + extra

    def forward(tokens: int) -> float:
        return 2 * tokens * model.parameters + 4 * tokens**2 * model.depth * model.width

    student = 2 * forward(large) + crops.locals * forward(small)
    return _STUDENT * student * (1 - model.drop_path) + _TEACHER * 2 * forward(large)


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


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.0f}"


def lines_of(plan: Plan, model: Model, gpu_name: str, prices: Mapping[str, Any]) -> list[str]:
    """The plan as lines: what, how much, from what it is computed."""
    gpu = prices["gpu"][gpu_name]
    raw_tb = plan.slides * plan.slide_gb / 1e3
    tiles = plan.slides * plan.tiles
    shards_tb = tiles * plan.tile_kb / 1e9
    hours = gpu_hours(model, CROPS, plan.samples, gpu)
    days = hours / plan.gpus / 24
    rate = plan.samples / (days * 86400)
    compute = hours * gpu["hour"] if "hour" in gpu else None
    share = float(prices["overhead"]["share"])
    extra = None if compute is None else compute * share
    rows = [
        ("slides", f"{plan.slides:,}", ""),
        ("raw", f"{raw_tb:,.1f} TB", f"slides x {plan.slide_gb:g} GB"),
        ("tiles", f"{tiles / 1e6:,.0f} million", f"slides x {plan.tiles:,}"),
        ("shards", f"{shards_tb:,.2f} TB", f"tiles x {plan.tile_kb:g} KB"),
        ("samples", f"{plan.samples / 1e6:,.0f} million", f"{plan.samples / tiles:.2f} x tiles"),
        ("steps", f"{plan.samples / plan.batch:,.0f}", f"samples / {plan.batch:,}"),
        ("GPU-hours", f"{hours:,.0f}", f"{gpu['name']}, {gpu['efficiency']:.0%} of its peak"),
        ("days", f"{days:,.1f}", f"GPU-hours / {plan.gpus} GPUs / 24"),
        ("tiles/s", f"{rate:,.0f}", "what the loaders must bring"),
        ("from the store", f"{rate * plan.tile_kb / 1e3:,.0f} MB/s", "tiles/s x tile"),
        ("compute", _dollars(compute), f"GPU-hours x ${gpu.get('hour', 0):.2f}"),
        ("overhead", _dollars(extra), f"{share:.0%} of it: disks, idle time, failed runs"),
    ]
    for store in prices["storage"].values():
        egress = store.get("egress_tb")
        out = None if egress is None else raw_tb * egress
        how = (
            f"shards for {plan.months:g} months; the raw slides:"
            f" {_dollars(raw_tb * store['tb_month'])} a month, at most {_dollars(out)} to take out"
        )
        rows.append((store["name"], _dollars(shards_tb * store["tb_month"] * plan.months), how))
    dated = f"prices of {prices['date']}: {prices['source']}"
    return [*(f"{name:20s}{value:>16s}  {how}" for name, value, how in rows), dated]


def check_lines(prices: Mapping[str, Any]) -> list[str]:
    """The GPU-hours of published runs beside those of the formula."""
    lines = [f"{'run':32s}{'published':>10s}{'formula':>10s}{'error':>8s}  from"]
    for run in RUNS:
        hours = gpu_hours(run.model, run.crops, run.samples, prices["gpu"][run.gpu])
        known = "-" if run.hours is None else f"{run.hours:,.0f}"
        error = "-" if run.hours is None else f"{hours / run.hours - 1:+.0%}"
        lines.append(f"{run.name:32s}{known:>10s}{hours:10,.0f}{error:>8s}  {run.where}")
    return lines


@click.command(help=__doc__)
@click.option("--slides", default=Plan.slides, show_default=True, type=click.IntRange(1))
@click.option("--slide-gb", default=Plan.slide_gb, show_default=True, type=float)
@click.option("--tiles", default=Plan.tiles, show_default=True, help="Of a slide.")
@click.option("--tile-kb", default=Plan.tile_kb, show_default=True, type=float)
@click.option("--samples", default=Plan.samples, show_default=True, help="Tiles over the run.")
@click.option("--batch", default=Plan.batch, show_default=True, type=click.IntRange(1))
@click.option("--model", type=click.Choice(list(MODELS)), default="vit_large", show_default=True)
@click.option("--gpu", default="h100", show_default=True, help="In the table of prices.")
@click.option("--gpus", default=Plan.gpus, show_default=True, type=click.IntRange(1))
@click.option("--months", default=Plan.months, show_default=True, help="Of storage.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Slides and sizes from here.")
@click.option("--prices", type=click.Path(path_type=Path), default=PRICES, help="Your own table.")
@click.option("--check", is_flag=True, help="Compare with published runs.")
@click.option("--probe", "shards", type=click.Path(path_type=Path), help="Measure here, on SHARDS.")
def main(
    slides: int,
    slide_gb: float,
    tiles: int,
    tile_kb: float,
    samples: float,
    batch: int,
    model: str,
    gpu: str,
    gpus: int,
    months: float,
    manifest: Path | None,
    prices: Path,
    check: bool,  # noqa: FBT001
    shards: Path | None,
) -> None:
    """Plan a pretraining."""
    try:
        table = read_prices(prices)
        if check:
            click.echo("\n".join(check_lines(table)))
            return
        if gpu not in table["gpu"]:
            raise ConfigError(f"--gpu {gpu}: {prices} has {', '.join(table['gpu'])}")
        if manifest:
            slides, slide_gb = _of_manifest(manifest)
        found = _measured(shards, manifest) if shards else None
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    if found:
        tile_kb, tiles = found.tile_kb, round(found.tiles)
    plan = Plan(slides, slide_gb, tiles, tile_kb, samples, batch, gpus, months)
    click.echo("\n".join(lines_of(plan, MODELS[model], gpu, table)))
    if found:
        click.echo("\n".join(probe_lines(found, plan, MODELS[model], table["gpu"][gpu])))


def _measured(shards: Path, manifest: Path | None) -> Probe:
    from training.archive.probe import probe
    from training.archive.store import read_manifest

    rows = read_manifest(manifest).rows if manifest else ()
    return probe(shards, rows, manifest.parent if manifest else Path())


def probe_lines(found: Probe, plan: Plan, model: Model, gpu: Mapping[str, Any]) -> list[str]:
    """What was measured here, and what follows for the plan."""
    hours = gpu_hours(model, CROPS, plan.samples, gpu)
    rate = plan.samples / hours / 3600  # tiles a second of each GPU
    packing = "no slide of the manifest lies here"
    if found.pack is not None:
        days = found.pack * plan.slides / 86400
        packing = f"CPU seconds a slide: {days:,.1f} core-days for {plan.slides:,} slides"
    own = plan.samples * flops_of_sample(model, CROPS) / found.flops / 3600
    rows = [
        ("reading here", f"{found.read:,.0f} tiles/s", f"a core: {rate / found.read:.2f} a GPU"),
        ("packing here", "-" if found.pack is None else f"{found.pack:,.1f}", packing),
        (
            "computing here",
            f"{found.flops / 1e12:,.2f} TFLOP/s",
            f"{found.device}: {own:,.0f} hours",
        ),
    ]
    return [f"{name:20s}{value:>16s}  {how}" for name, value, how in rows]


def _of_manifest(file: Path) -> tuple[int, float]:
    """The number of usable slides of a manifest, and their mean size in GB."""
    from training.archive.store import read_manifest

    sizes = [row.size or 0 for row in read_manifest(file).rows if row.use and not row.problem]
    known = [size for size in sizes if size]
    if not known:
        raise ConfigError(f"{file}: no usable slide with a size")
    return len(sizes), sum(known) / len(known) / 1e9


if __name__ == "__main__":
    main()
