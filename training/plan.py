r"""What a pretraining on an archive needs: storage, rates, GPU-hours, money, days.

\b
python -m training.plan --slides 110000 --model vit_large --gpus 32
python -m training.plan --manifest m.parquet --recipe training/recipes/dino_large_cluster.yaml
python -m training.plan --check

Every number is arithmetic; docs/archive.md has the formulas. Prices and speeds of GPUs are in
training/plans/prices.toml, with a date: copy it, edit it, and give it with --prices. --check
compares the GPU-hours with those of published runs. --probe SHARDS measures reading, packing and
training on this machine, and puts in the tiles' size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.text import counted, duration
from training.archive.cost import (
    CROPS,
    MODELS,
    PRICES,
    RUNS,
    Crops,
    Model,
    flops_of_sample,
    gpu_hours,
    published_over_formula,
    read_prices,
)

if TYPE_CHECKING:
    from training.archive.probe import Probe

_OFTEN = 200  # how often a tile may be seen before the plan remarks on it
_BAR = 0.3  # the error of the formula that is accepted
_DAY = 86_400


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
        name: Of the network.
        model: The network.
        crops: Of a tile.
    """

    slides: int = 110_000
    slide_gb: float = 1.14
    tiles: int = 2_400
    tile_kb: float = 17.0
    samples: float = 400e6
    batch: int = 3_072
    gpus: int = 32
    months: float = 6.0
    name: str = "vit_large"
    model: Model = MODELS["vit_large"]
    crops: Crops = CROPS


def lines_of(plan: Plan, gpu_name: str, prices: Mapping[str, Any]) -> list[str]:
    """The plan as lines: what, how much, from what it is computed."""
    crops = plan.crops
    slides = counted(plan.slides, "slide")
    title = (
        f"DINO of {plan.name} on {slides}; of each tile {crops.globals} crops of {crops.large} px,"
        f" {crops.locals} of {crops.small} px"
    )
    rows = [
        *_data_rows(plan),
        *_training_rows(plan, prices["gpu"][gpu_name], prices),
        *_storage_rows(plan, prices),
    ]
    dated = f"prices of {prices['date']}, {prices['source']}. Ask for prices of today"
    return [title, *(f"{name:20s}{value:>16s}  {how}".rstrip() for name, value, how in rows), dated]


_Row = tuple[str, str, str]  # what, how much, from what


def _data_rows(plan: Plan) -> list[_Row]:
    tiles = plan.slides * plan.tiles
    seen = plan.samples / tiles
    often = f"each tile is seen {seen:,.{1 if seen < _OFTEN else 0}f} times"
    if seen > _OFTEN:
        often += ": that is more than helps, give --samples"
    return [
        ("slides", f"{plan.slides:,}", ""),
        ("raw slides", _bytes(plan.slides * plan.slide_gb * 1e9), f"{plan.slide_gb:.3g} GB each"),
        ("tiles", _count(tiles), f"slides x {plan.tiles:,}"),
        ("shards", _bytes(tiles * plan.tile_kb * 1e3), f"tiles x {plan.tile_kb:.3g} KB"),
        ("samples", _count(plan.samples), f"tiles over the run: {often}"),
        ("steps", f"{plan.samples / plan.batch:,.0f}", f"samples / batch of {plan.batch:,}"),
    ]


def _training_rows(plan: Plan, gpu: Mapping[str, Any], prices: Mapping[str, Any]) -> list[_Row]:
    hours = gpu_hours(plan.model, plan.crops, plan.samples, gpu)
    low, high = published_over_formula(prices)
    days = hours / plan.gpus / 24
    rate = plan.samples / (days * _DAY)
    speed = f"{gpu['name']} at {gpu['efficiency']:.0%} of its peak"
    if plan.crops.recomputed:
        speed += ", activations computed twice"
    took = f"published runs took {low:.2f} to {high:.2f} times the formula's hours (--check)"
    how = f"GPU-hours / {counted(plan.gpus, 'GPU')} / 24; up to {days * high:,.1f}"
    rows = [
        ("GPU-hours", f"{hours:,.0f}", speed),
        ("  up to", f"{hours * high:,.0f}", took),
        ("days", f"{days:,.1f}", how),
        ("tiles/s", f"{rate:,.0f}", "what the loaders must bring"),
        ("from the store", f"{rate * plan.tile_kb / 1e3:,.0f} MB/s", "tiles/s x size of a tile"),
    ]
    if "hour" not in gpu:
        return [
            *rows,
            ("training", "unknown", f"the table has no price of an hour of {gpu['name']}"),
        ]
    share = float(prices["overhead"]["share"])
    money = hours * gpu["hour"]
    most = money * high * (1 + share)
    return [
        *rows,
        ("compute", _dollars(money), f"GPU-hours x ${gpu['hour']:.2f}"),
        ("overhead", _dollars(money * share), f"{share:.0%} of it: disks, idle time, failed runs"),
        ("training", _dollars(money * (1 + share)), f"both; up to {_dollars(most)}"),
    ]


def _storage_rows(plan: Plan, prices: Mapping[str, Any]) -> list[_Row]:
    """What the shards cost in each store, and what the raw slides would."""
    raw = plan.slides * plan.slide_gb / 1e3
    shards = plan.slides * plan.tiles * plan.tile_kb / 1e9
    rows = []
    for store in prices["storage"].values():
        egress = store.get("egress_tb")
        out = "no price is known to take them out"
        if egress is not None:
            out = f"at most {_dollars(raw * egress)} to take them out once"
        how = (
            f"shards, {plan.months:g} months. Raw slides: {_dollars(raw * store['tb_month'])} a"
            f" month, {out}"
        )
        rows.append((store["name"], _dollars(shards * store["tb_month"] * plan.months), how))
    return rows


def _count(number: float) -> str:
    return f"{number / 1e6:,.0f} million" if number >= 10e6 else f"{number:,.0f}"


def _bytes(size: float) -> str:
    if size >= 1e11:
        return f"{size / 1e12:,.1f} TB" if size >= 1e13 else f"{size / 1e12:,.2f} TB"
    return f"{size / 1e9:,.2f} GB"


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 10 or amount < 0.005 else f"${amount:,.2f}"


def _speed(flops: float) -> str:
    return f"{flops / 1e12:,.1f} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:,.1f} GFLOP/s"


def check_lines(prices: Mapping[str, Any]) -> list[str]:
    """The GPU-hours of published runs beside those of the formula, and what follows."""
    lines = [
        "GPU-hours of published pretrainings, and what the formula gives for them",
        f"{'run':32s}{'published':>10s}{'formula':>10s}{'error':>8s}  from",
    ]
    errors = []
    for run in RUNS:
        if run.gpu not in prices["gpu"]:
            lines.append(f"{run.name:32s} the table of prices has no [gpu.{run.gpu}]")
            continue
        hours = gpu_hours(run.model, run.crops, run.samples, prices["gpu"][run.gpu])
        known, error = "-", "-"
        if run.hours is not None:
            errors.append(hours / run.hours - 1)
            known, error = f"{run.hours:,.0f}", f"{errors[-1]:+.0%}"
        lines.append(f"{run.name:32s}{known:>10s}{hours:10,.0f}{error:>8s}  {run.where}")
    good = sum(abs(error) <= _BAR for error in errors)
    low, high = published_over_formula(prices)
    return [
        *lines,
        f"{good} of {len(errors)} runs with published hours are within {_BAR:.0%}. They took"
        f" {low:.2f} to {high:.2f} times the formula's hours, which count no stop and no slow"
        " network. Plan for the larger number.",
    ]


@click.command(help=__doc__)
@click.option("--slides", default=Plan.slides, show_default=True, type=click.IntRange(1))
@click.option("--slide-gb", default=Plan.slide_gb, show_default=True, type=float)
@click.option("--tiles", default=Plan.tiles, show_default=True, help="Of a slide.",
              type=click.IntRange(1))  # fmt: skip
@click.option("--tile-kb", default=Plan.tile_kb, show_default=True, type=float)
@click.option("--samples", type=click.FloatRange(1), help="Tiles over the run; 400 million.")
@click.option("--batch", type=click.IntRange(1), help=f"Tiles of a step; {Plan.batch}.")
@click.option("--model", type=click.Choice(list(MODELS)), help=f"The network; {Plan.name}.")
@click.option("--recipe", type=click.Path(path_type=Path),
              help="Network, crops, batch and steps of a recipe (DINO of a ViT).")  # fmt: skip
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
    samples: float | None,
    batch: int | None,
    model: str | None,
    recipe: Path | None,
    gpu: str,
    gpus: int,
    months: float,
    manifest: Path | None,
    prices: Path,
    check: bool,  # noqa: FBT001
    shards: Path | None,
) -> None:
    """Plan a pretraining."""
    plan = Plan(slides, slide_gb, tiles, tile_kb, gpus=gpus, months=months)
    try:
        table = read_prices(prices)
        if check:
            click.echo("\n".join(check_lines(table)))
            return
        if gpu not in table["gpu"]:
            raise ConfigError(f"--gpu {gpu}: {prices} has {', '.join(table['gpu'])}")
        if recipe:
            plan = of_recipe(plan, recipe)
        if manifest:
            plan = _of_manifest(plan, manifest)
        found = _measured(shards, manifest) if shards else None
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    if found:
        plan = replace(plan, tile_kb=found.tile_kb, tiles=round(found.tiles))
    if model:
        plan = replace(plan, name=model, model=MODELS[model])
    plan = replace(plan, samples=samples or plan.samples, batch=batch or plan.batch)
    click.echo("\n".join(lines_of(plan, gpu, table)))
    if found:
        click.echo("\n".join(probe_lines(found, plan, table["gpu"][gpu])))


def of_recipe(plan: Plan, file: Path) -> Plan:
    """The plan with the network, crops, batch and steps of a recipe.

    Raises:
        ConfigError: The recipe is not valid, or not DINO with a ViT.
    """
    import torch

    from pathencoder.compat import import_timm
    from training import config
    from training.methods import dino

    cfg = config.load(file, ["data.root=.", "run.out=."])
    name, args = cfg.backbone.architecture, cfg.backbone.args
    if not isinstance(cfg.method, dino.Settings) or not name.startswith("vit_"):
        raise ConfigError(
            f"--recipe {file}: it is {cfg.method.name} with {name}, but the formula is that of DINO"
            " with a ViT. Measure a few steps instead: its log has tiles/s"
        )
    with torch.device("meta"):
        network = import_timm().create_model(name, num_classes=0, **args)
    model = Model(
        sum(p.numel() for p in network.blocks.parameters()),
        len(network.blocks),
        network.embed_dim,
        network.patch_embed.patch_size[0],
        float(args.get("drop_path_rate", 0.0)),
        getattr(network, "num_reg_tokens", 0),
    )
    large, small = cfg.method.global_crops, cfg.method.local_crops
    crops = Crops(large.px, small.px, small.count, large.count, cfg.run.checkpoint_activations)
    batch = cfg.data.batch
    samples = float(cfg.optim.steps) * batch
    return replace(plan, samples=samples, batch=batch, name=name, model=model, crops=crops)


def _measured(shards: Path, manifest: Path | None) -> Probe:
    from training.archive.probe import probe
    from training.archive.store import read_manifest

    rows = read_manifest(manifest).rows if manifest else ()
    return probe(shards, rows, manifest.parent if manifest else Path())


def probe_lines(found: Probe, plan: Plan, gpu: Mapping[str, Any]) -> list[str]:
    """What was measured here, and what follows for the plan."""
    hours = gpu_hours(plan.model, plan.crops, plan.samples, gpu)
    rate = plan.samples / hours / 3600  # tiles a second of each GPU
    pack, packing = "-", "no slide of the manifest lies here: give --manifest, or fetch some"
    if found.pack is not None:
        whole = duration(found.pack * plan.slides)
        pack = f"{found.pack:,.1f} CPU-s"
        packing = f"a slide: {whole} of one core for {counted(plan.slides, 'slide')}"
    flops = plan.samples * flops_of_sample(plan.model, plan.crops)
    needs = f"by one core: {gpu['name']} needs {rate / found.read:.2f} cores for each GPU"
    takes = f"{found.device}, a ViT-S: the run would take {duration(flops / found.flops)} here"
    rows = [
        ("reading", f"{found.read:,.0f} tiles/s", needs),
        ("packing", pack, packing),
        ("computing", _speed(found.flops), takes),
    ]
    table = [f"{name:20s}{value:>16s}  {how}" for name, value, how in rows]
    return [
        "measured on this machine (tiles of a slide and their size above are those of the shards)",
        *table,
    ]


def _of_manifest(plan: Plan, file: Path) -> Plan:
    """The plan for the usable slides of a manifest, with their mean size."""
    from training.archive.store import read_manifest

    sizes = [row.size or 0 for row in read_manifest(file).rows if row.use and not row.problem]
    known = [size for size in sizes if size]
    if not known:
        raise ConfigError(f"{file}: no usable slide with a size")
    return replace(plan, slides=len(sizes), slide_gb=sum(known) / len(known) / 1e9)


if __name__ == "__main__":
    main()
