"""Fit the length of a run to its time limit, by the time that its first steps take."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training import distributed
from training.config import Config
from training.data.loader import TileBatch
from training.files import write_text
from training.methods import Views
from training.provenance import saved_steps
from training.trainer.prepare import opened
from training.trainer.run import Run
from training.trainer.signals import StopRequest

log = logging.getLogger("training")

DoStep = Callable[[Run, Config, int, TileBatch, list[Views]], object]
FILE = "schedule.json"
_COLD = 3  # of the steps of the trial, the first ones are left out
_TIMED = 12  # steps whose time is measured, unless they take too much of the run's time
_TRIAL_SHARE = 0.05  # of the time limit, after which the trial ends
_SPARE = 0.05  # of the time limit, for checkpoints and the export


@dataclass(frozen=True)
class Times:
    """What the parts of a run take, in seconds.

    Attributes:
        opening: Until the first step.
        knn: k-NN accuracy, once.
        step: A step.
        trial: All of the trial.
    """

    opening: float
    knn: float
    step: float
    trial: float


def fitted(cfg: Config, request: StopRequest, do_step: DoStep) -> Config | None:
    """The settings of a run with the steps that fit into its time, if it asks for that.

    The steps are measured once, by a short trial, and recorded in schedule.json; a run that is
    resumed keeps them, whatever its time limit.

    Args:
        cfg: The settings.
        request: Whether the run was asked to stop.
        do_step: Does a step of a run: run, settings, step, its batch and its views.

    Returns:
        The settings; None if a signal stopped the trial.

    Raises:
        StoreError: The run has checkpoints, and all are damaged.
    """
    if not cfg.run.fit_steps or cfg.run.minutes is None:
        return cfg
    known = _known(cfg.run.out)
    if known is None:
        times = _trial(cfg, request, do_step)
        if times is None:
            return None
        steps = steps_for(60 * cfg.run.minutes, times, cfg.run.knn_every)
        known = steps, min(cfg.optim.warmup, steps // 10)
        _record(cfg, *known, times)
    steps, warmup = known
    log.info("the schedule has %d steps, %d of them warm-up", steps, warmup)
    optim = cfg.optim.model_copy(update={"steps": steps, "warmup": warmup})
    return cfg.model_copy(update={"optim": optim})


def steps_for(seconds: float, times: Times, knn_every: int) -> int:
    """How many steps fit into a time, after the trial and besides k-NN at start and end.

    Args:
        seconds: The time limit.
        times: What the parts of the run take.
        knn_every: Steps between two measurements of k-NN accuracy; 0: none.
    """
    left = seconds * (1 - _SPARE) - times.trial - times.opening - 2 * times.knn
    return max(1, int(left / (times.step + (times.knn / knn_every if knn_every else 0))))


def _known(run: Path) -> tuple[int, int] | None:
    """Steps and warm-up of a run that has begun: of a checkpoint, else of its schedule.json."""
    if described := saved_steps.newest_described(run):
        optim = described[1]["settings"]["optim"]
    elif (run / FILE).is_file():
        optim = json.loads((run / FILE).read_text())
    else:
        return None
    return int(optim["steps"]), int(optim["warmup"])


def _record(cfg: Config, steps: int, warmup: int, times: Times) -> None:
    if distributed.rank() == 0:
        values = {"steps": steps, "warmup": warmup, "minutes": cfg.run.minutes}
        text = json.dumps({**values, "seconds_per_step": round(times.step, 4)}, indent=1)
        write_text(cfg.run.out / FILE, text)
    if steps < 10 * cfg.optim.warmup:
        log.warning(
            "only %d steps fit into %g minutes: the warm-up has %d steps instead of %d",
            steps,
            cfg.run.minutes,
            warmup,
            cfg.optim.warmup,
        )


def _trial(cfg: Config, request: StopRequest, do_step: DoStep) -> Times | None:
    """Measure a short run in a folder of its own, which is removed; None if a signal came."""
    assert cfg.run.minutes is not None
    folder, most = cfg.run.out / ".trial", 60 * cfg.run.minutes * _TRIAL_SHARE
    log.info("measuring the time of a step, to fit the schedule to %g minutes", cfg.run.minutes)
    _remove(folder)
    began = time.monotonic()
    try:
        with opened(_short(cfg, folder), request) as run:
            ready = time.monotonic()
            run.report_knn(0)
            ends = [time.monotonic()]
            knn = ends[0] - ready
            for item in run.batches():
                do_step(run, cfg, *item)
                ends.append(time.monotonic())
                late = len(ends) > 2 and ends[-1] - ready > most
                if _agreed(run, late or len(ends) > _COLD + _TIMED) or run.stopping:
                    break
            if run.stopping:
                return None
            step = _mean(run, ends)
        return Times(ready - began, knn, step, time.monotonic() - began)
    finally:
        _remove(folder)


def _short(cfg: Config, folder: Path) -> Config:
    """The settings of the trial: the same steps, and nothing written that others read."""
    quiet: dict[str, object] = {
        "out": folder,
        "minutes": None,
        "fit_steps": False,
        "tensorboard": False,
    }
    quiet |= {"wandb": None, "log_every": 10**9, "checkpoint_every": 10**9, "knn_every": 0}
    optim = cfg.optim.model_copy(update={"steps": max(cfg.optim.steps, _COLD + _TIMED)})
    run = cfg.run.model_copy(update=quiet)
    return cfg.model_copy(update={"start_from": None, "optim": optim, "run": run})


def _agreed(run: Run, wanted: bool) -> bool:  # noqa: FBT001
    """Whether any process wants to end the trial: all must end it together."""
    return bool(distributed.largest(torch.tensor([float(wanted)], device=run.device)))


def _mean(run: Run, ends: list[float]) -> float:
    """Seconds of a step, without the first ones; the longest of all processes."""
    first = max(0, min(_COLD, len(ends) - 2))
    seconds = (ends[-1] - ends[first]) / max(1, len(ends) - 1 - first)
    return float(distributed.largest(torch.tensor([seconds], device=run.device)))


def _remove(folder: Path) -> None:
    if distributed.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
