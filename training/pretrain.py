"""Pretraining: python -m training.pretrain RECIPE.yaml [key=value ...], also under torchrun.

    --check RECIPE.yaml [key=value ...]   check a config, its data and this machine; train nothing
    --help                                every setting with its meaning, default and bounds

`train` is the training loop. Everything random in a step follows from the seed and the step, so
that a resumed run gives the same weights.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from pathencoder import allocator
from pathencoder.errors import PathEncoderError
from training import config, distributed
from training.config import help as settings
from training.data.loader import TileBatch
from training.methods import Logs, Views
from training.trainer import checks, fit, saving, signals
from training.trainer.optimizer import clip, set_rates
from training.trainer.prepare import opened
from training.trainer.run import Run

log = logging.getLogger("training")
_ended_by: list[BaseException] = []  # kept: freeing what it holds can wait for other processes


def train(cfg: config.Config) -> Path:
    """Train until the last step, the time limit or a signal, from the newest checkpoint if any.

    Args:
        cfg: The settings.

    Returns:
        The run's folder.

    Raises:
        ConfigError: The settings do not match the data, the network or the checkpoint.
        StoreError: The folder cannot be written, or the disk is full.
        PathEncoderError: Several batches in a row gave no finite loss.
    """
    group = distributed.processes(cfg.run.timeout_minutes)
    with group, signals.listening() as request:
        fitted = fit.fitted(cfg, request, _step)
        if fitted is None:
            log.warning("stopped by %s before the first step", request.signal)
            return cfg.run.out
        return _train(fitted, request)


def _train(cfg: config.Config, request: signals.StopRequest) -> Path:
    with opened(cfg, request) as run:
        step = run.first_step - 1
        run.report_knn(run.first_step)
        for step, batch, views in run.batches():
            run.report(step, *_step(run, cfg, step, batch, views))
            if run.stopping or run.method.converged:
                break
        return run.finish(step + 1)


def _step(
    run: Run, cfg: config.Config, step: int, batch: TileBatch, views: list[Views]
) -> tuple[Tensor, Tensor, Logs]:
    """Do a step; returns its loss, the norm of its gradient, and what the method logs."""
    set_rates(run.optimizer, cfg, step)
    loss, logs = _backward(run, views, step)
    norm = clip(run.parameters, cfg.optim.clip)
    if run.good(step, batch, loss, norm):
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.method.after_step(step)
    return loss, norm, logs


def _backward(run: Run, views: list[Views], step: int) -> tuple[Tensor, Logs]:
    """Add the gradients of the mean loss over the parts of a batch.

    Returns:
        The mean loss, detached, and the means of what the method logs.
    """
    losses, logged = [], []
    for i, part in enumerate(views):
        with run.exchange(i):
            with run.autocast():
                loss, logs = run.forward(part, step)
            (loss / len(views)).backward()
        losses.append(loss.detach())
        logged.append(logs)
    return torch.stack(losses).mean(), {
        k: sum(t[k] for t in logged) / len(views) for k in logged[0]
    }


def main(arguments: list[str]) -> int:
    """Train the recipe that the command line names, check it, or explain the settings.

    Returns:
        Exit status: 0 done, or stopped by the time limit or a signal with a checkpoint; 1 failed;
        2 wrong usage.
    """
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if "-h" in arguments or "--help" in arguments:
        print(f"{_usage()}\n\n{settings.help_text()}")
        return 0
    named = [a for a in arguments if a != "--check"]
    if not named or named[0].startswith("-"):
        print(_usage(), file=sys.stderr)
        return 2
    return _act(Path(named[0]), named[1:], only_check=len(named) < len(arguments))


def _usage() -> str:
    return (__doc__ or "").partition("\n\n`train`")[0]


def _act(recipe: Path, overrides: list[str], *, only_check: bool) -> int:
    try:
        cfg = config.load(recipe, overrides)
        if only_check:
            return _check(cfg)
        allocator.keep_freed_memory()
        train(cfg)
    except PathEncoderError as error:
        _ended_by.append(error)
        log.error("error: %s", error)
        return 1
    except RuntimeError as error:
        if not (reason := distributed.lost_process(error)):
            raise
        _ended_by.append(error)
        log.error(
            "error: another process of this run ended, or does not answer (%s). See its output for"
            " the reason. Checkpoints are whole: run the same command again, on as many processes"
            " as there are now",
            reason,
        )
        return 1
    except OSError as error:
        if error.errno not in saving.FULL:
            raise
        _ended_by.append(error)
        log.error(
            "error: no space left (%s). Checkpoints are whole: free some space and run the same"
            " command",
            error,
        )
        return 1
    return 0


def end(status: int) -> NoReturn:
    """End the command.

    After an error in a run of several processes it ends at once: gloo's threads can wait for
    minutes for a process that has ended already.
    """
    if status and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _check(cfg: config.Config) -> int:
    """Print the settings that differ from the defaults, and every problem."""
    for name, value in settings.different(cfg).items():
        print(f"{name}={settings.as_yaml(value)}")
    report = checks.examine(cfg)
    for line in report.found:
        print(f"ok: {line}")
    for line in report.problems:
        print(f"error: {line}")
    print(f"not ready: {len(report.problems)} to correct" if report.problems else "ready to train")
    return 1 if report.problems else 0


if __name__ == "__main__":
    end(main(sys.argv[1:]))
