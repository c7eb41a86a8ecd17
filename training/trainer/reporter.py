"""Log lines, alarms and k-NN of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import torch
from torch import Tensor

from pathencoder.text import duration
from training import distributed
from training.backbones import make
from training.methods import Logs
from training.monitor.alarms import Alarms
from training.monitor.collapse import FirstFeatures
from training.monitor.knn import LabelledSet, knn_report, labelled_set
from training.monitor.log import peak_memory_mb, read_log
from training.monitor.smooth import Smoothed
from training.trainer import preflight
from training.trainer.parts import Parts
from training.trainer.throughput import Throughput

log = logging.getLogger("training")

# Not in the figures of a line for people.
_NOT_SHOWN = (
    "tiles_per_s",
    "data_wait",
    "memory_mb",
    "weight_decay",
    "temperature",
    "precision",
    "processes",
)
_KNN_PX = 112  # side of the tiles for k-NN, for networks that accept any size


class Reporter:
    """Writes the log of a run.

    Args:
        parts: The parts of the run.
        throughput: Measures the steps.
    """

    def __init__(self, parts: Parts, throughput: Throughput) -> None:
        cfg = parts.cfg
        self._parts, self._cfg, self._throughput = parts, cfg, throughput
        self._began = time.monotonic()
        self._features = FirstFeatures(parts.method.backbone)
        tiles_at_once = cfg.data.batch // cfg.optim.accumulate
        lines = read_log(cfg.run.out) if distributed.rank() == 0 else []
        self._loss = Smoothed("loss", lines)
        self._alarms = Alarms(chance=cfg.method.chance_loss(tiles_at_once), log=lines)
        self._knn_sets = preflight.knn_sets_there(cfg)
        self._labelled: list[LabelledSet] | None = None

    @property
    def seconds(self) -> float:
        """Time since the run began."""
        return time.monotonic() - self._began

    def before(self, step: int) -> None:
        """Call before the forward pass of a step."""
        self._features.want(wanted=self._logs(step))

    def after(self, step: int, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        """Write a log line and k-NN accuracy after a step, if they are due."""
        if self._logs(step):
            self._log(step, loss, norm, logs)
        every = self._cfg.run.knn_every
        if every and (step + 1) % every == 0:
            self.knn(step + 1)

    def knn(self, step: int) -> None:
        """Log signs of collapse and k-NN accuracy on labelled train parts."""
        if not self._knn_sets:
            return
        spec = make.spec_of(self._cfg.backbone, self._cfg.export)
        if self._labelled is None:
            px = spec.input_size if spec.prefix_tokens else min(_KNN_PX, spec.input_size)
            self._labelled = [labelled_set(f, spec, px=px) for f in self._knn_sets]
        figures = knn_report(self._parts.method.encoder(), spec, self._labelled)
        self._parts.monitor.write("knn", step, figures)
        self._warn(step, self._alarms.check_knn(step, figures))
        self._throughput.restart()

    def _logs(self, step: int) -> bool:
        return (step + 1) % self._cfg.run.log_every == 0

    def _log(self, step: int, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        own = {"loss": float(loss), **{name: float(value) for name, value in logs.items()}}
        joint = self._over_processes(own)
        mean = self._loss.add(step + 1, joint["loss"])
        values = {
            **joint,
            "grad_norm": float(norm),
            "lr": self._parts.optimizer.param_groups[0]["lr"],
            "weight_decay": max(g["weight_decay"] for g in self._parts.optimizer.param_groups),
            **self._parts.method.schedule(step),
            **self._features.spread(self._tiles_here()),
        }
        rate, wait = self._throughput.measure()
        memory = peak_memory_mb(self._parts.device)
        values |= {"tiles_per_s": rate, "data_wait": wait, "memory_mb": memory}
        values |= {
            "precision": str(self._parts.dtype or torch.float32).removeprefix("torch."),
            "processes": distributed.world(),
        }
        write = self._parts.monitor.write
        write("train", step + 1, values, words=self._in_words(step + 1, values, mean))
        self._warn(step + 1, self._alarms.check(step + 1, values))

    def _warn(self, step: int, alarms: Iterable[tuple[str, str]]) -> None:
        """Log alarms in the first process."""
        if distributed.rank() != 0:
            return
        for name, words in alarms:
            self._parts.monitor.write("alarm", step, {"alarm": name, "words": words}, words="")
            log.warning("ALARM at step %d, %s: %s", step, name, words)

    def _tiles_here(self) -> int:
        """Tiles of one forward pass of this process."""
        return self._cfg.data.batch // (distributed.world() * self._cfg.optim.accumulate)

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if distributed.world() == 1:
            return values
        here = torch.tensor(list(values.values()), device=self._parts.device)
        return dict(zip(values, distributed.mean(here).tolist(), strict=True))

    def _in_words(self, step: int, values: dict[str, float], mean: float) -> str:
        steps = self._cfg.optim.steps
        shown = {k: f"{v:.3g}" for k, v in values.items() if k not in _NOT_SHOWN}
        shown["loss"] += f" (exponential mean {mean:.3g})"
        figures = "  ".join(f"{k} {v}" for k, v in shown.items())
        rate, wait = values["tiles_per_s"], values["data_wait"]
        left = duration(self._seconds_left(steps - step, rate))
        return (
            f"step {step}/{steps} ({step / steps:.0%})  {figures}"
            f"  {rate:.0f} tiles/s  wait {wait:.0%}  {left} left{self._too_late(step, rate)}"
        )

    def _too_late(self, step: int, rate: float) -> str:
        """Words for a schedule that the time limit will cut; "" if it will not."""
        cfg = self._cfg
        if cfg.run.minutes is None:
            return ""
        seconds = max(60 * cfg.run.minutes - self.seconds, 0.0)
        last = step + int(seconds * rate / cfg.data.batch)
        if last >= 0.95 * cfg.optim.steps:
            return ""
        return f" (stops near step {last}, before the schedule ends)"

    def _seconds_left(self, steps: int, rate: float) -> float:
        left = steps * self._cfg.data.batch / rate
        minutes = self._cfg.run.minutes
        return min(left, max(60 * minutes - self.seconds, 0.0)) if minutes else left
