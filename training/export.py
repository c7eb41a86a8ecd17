"""Export the encoder of a run again, from one of its checkpoints, without training.

python -m training.export RUN[@STEP]

RUN is a run's folder, STEP a step with a checkpoint (default: the newest). The tiles are not
needed, except for an average with the starting weights (export.start_share).
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from pathencoder.errors import ConfigError, PathEncoderError
from training import config, methods
from training.backbones import make
from training.from_config import network_at_start
from training.provenance import saved_steps
from training.provenance.record import Provenance
from training.publishing import shared_options
from training.publishing.average import record_of, reexport
from training.trainer import checkpoint
from training.trainer.export import export_method
from training.trainer.optimizer import make_optimizer


@click.command(help=__doc__)
@click.argument("run", metavar="RUN[@STEP]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder to write. Default: RUN/export, and RUN/export-STEP where a step is named.",
)
@click.option("--embedding", help="Another rule for the embedding: cls, mean, stages:a,b/mean,max.")
@shared_options.average()
def main(run: str, out: Path | None, embedding: str | None, others: tuple[Path, ...]) -> None:
    """Export a run, or the average of several."""
    try:
        place, step = named(run)
        if not others:
            click.echo(export_run(place, step, out=out, embedding=embedding))
            return
        if out is None or step is not None:
            raise ConfigError("--average needs --out, and takes the export of every run, not @STEP")
        click.echo(reexport([place, *others], out, embedding=embedding))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def export_run(
    run: Path, step: int | None = None, *, out: Path | None = None, embedding: str | None = None
) -> Path:
    """Export the encoder of a checkpoint.

    Args:
        run: The run's folder.
        step: The step of the checkpoint; None: the newest.
        out: The folder to write; None: export, or export-STEP, in the run's folder.
        embedding: The embedding rule; None: that of the run.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: The run has no such checkpoint, or its config is not valid.
        StoreError: The checkpoint is damaged, or the folder cannot be written.
    """
    opened = open_run(run, step, embedding=embedding)
    return export_method(
        opened.cfg,
        opened.method,
        opened.made_from,
        out or run / ("export" if step is None else f"export-{step}"),
        step=opened.step,
        start=opened.start,
    )


@dataclass(frozen=True)
class Opened:
    """A run as one of its checkpoints holds it.

    Attributes:
        cfg: Its settings.
        method: With the weights of the checkpoint, in eval mode.
        made_from: Its record.
        step: Steps that are done.
        checkpoint: The checkpoint's folder.
    """

    cfg: config.Config
    method: methods.Method
    made_from: Provenance
    step: int
    checkpoint: Path

    def start(self) -> nn.Module:
        """The backbone as the run started with it."""
        return network_at_start(self.cfg)


def open_run(run: Path, step: int | None = None, *, embedding: str | None = None) -> Opened:
    """Open a checkpoint of a run; arguments and errors as in `export_run`."""
    place, about = _checkpoint(run, step)
    cfg = config.load(run / "config.yaml")
    if embedding:
        backbone = cfg.backbone.model_copy(update={"embedding": embedding})
        cfg = cfg.model_copy(update={"backbone": backbone})
    known = about.get("provenance")  # older checkpoints have none
    made_from = Provenance.from_json(known) if known else record_of(run, cfg)
    method = methods.build(cfg.method, _plan(cfg, made_from.tiles_at_start))
    # of an older version, the checkpoint lacks the settings that were added since
    settings = config.with_defaults(about["settings"])
    checkpoint.load(place, method, make_optimizer(method, cfg), settings)
    return Opened(cfg, method.eval(), made_from, int(about["step"]), place)


def named(text: str) -> tuple[Path, int | None]:
    """Folder and step of RUN[@STEP]; a folder's own name may hold an @."""
    name, at, step = text.rpartition("@")
    if not at or Path(text).is_dir():
        return Path(text), None
    if not step.isdecimal():
        raise ConfigError(f"{text!r}: {step!r} is not a step. Write RUN@300")
    return Path(name), int(step)


def _checkpoint(run: Path, step: int | None) -> tuple[Path, dict[str, Any]]:
    """A checkpoint, and what its run.json holds."""
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} has no config.yaml: give the folder of a run")
    there = saved_steps.newest_first(run)
    if step is None:
        if found := saved_steps.newest_described(run):
            return found
    elif (path := saved_steps.path_of(run, step)) in there:
        return path, saved_steps.about_of(path)
    raise ConfigError(
        f"{run} has no checkpoint"
        + (f" of step {step}" if step is not None else "")
        + (f"; there are: {', '.join(str(saved_steps.step_of(p)) for p in there)}" if there else "")
        + ". run.keep_every=N keeps one of every N steps"
    )


def _plan(cfg: config.Config, tiles: int) -> methods.Plan:
    """What the method is built from; its weights are those of the checkpoint."""
    untrained = cfg.backbone.model_copy(update={"start": None})
    return methods.Plan(
        backbone=lambda: make.make_backbone(untrained),
        width=make.output_width(make.make_backbone(untrained)),
        steps=cfg.optim.steps,
        batch=cfg.data.batch,
        tiles=tiles,
        mean=cfg.backbone.mean,
        std=cfg.backbone.std,
        generator=torch.Generator(),
        spec=functools.partial(make.spec_of, cfg.backbone, cfg.export),
    )


if __name__ == "__main__":
    sys.exit(main())
