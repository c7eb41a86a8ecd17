"""A run as the loop sees it: its parts, and what happens between steps."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pathencoder.text import duration
from training import config, distributed
from training.backbones import make
from training.data.corpus import Corpus
from training.data.loader import TileBatch, batches
from training.data.sampler import Sampler
from training.export import export
from training.methods import Logs, Method, Plan, Views
from training.monitor.alarms import Alarms
from training.monitor.log import (
    FirstFeatures,
    LabelledSet,
    Monitor,
    knn_report,
    labelled_set,
    peak_memory_mb,
)
from training.trainer import checkpoint, parallel
from training.trainer.guard import Guard, agree, first_not_finite
from training.trainer.signals import StopRequest
from training.trainer.throughput import Pace

log = logging.getLogger("training")


@dataclass
class Run:
    """Everything that a run holds.

    `step` is the first step to be done; `forward` is the method's loss over all processes.
    """

    cfg: config.Config
    folder: Path
    corpus: Corpus
    sampler: Sampler
    method: Method
    forward: nn.Module
    parameters: list[nn.Parameter]  # all that learn
    optimizer: torch.optim.Optimizer
    monitor: Monitor
    guard: Guard
    alarms: Alarms
    features: FirstFeatures
    pace: Pace
    request: StopRequest
    device: torch.device
    dtype: torch.dtype | None  # of autocast; None: none
    plan: Plan
    step: int
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False
    labelled: list[LabelledSet] | None = None
    views_lock: threading.Lock = field(default_factory=threading.Lock)

    def batches(self) -> Iterator[tuple[int, TileBatch, list[Views]]]:
        """(step, batch on the device, views of each of its parts) from the step to be done to the last; everything random in a step
        follows from seed and step."""
        d, r, n = self.cfg.data, self.cfg.run, self.cfg.optim.steps
        share = {"rank": distributed.rank(), "world": distributed.world()}
        means = {
            "threads": r.loaders,
            "processes": r.loader_processes,
            "keep_mb": r.keep_mb,
            "pin": self.device.type == "cuda",
        }
        read = batches(
            self.corpus, self.sampler, canvas=d.canvas, start=self.step, stop=n, **share, **means
        )
        for step, batch, views in self._with_views(read):
            torch.manual_seed(self._seed(step) + distributed.rank())
            self.guard.remember()
            self.features.want(wanted=(step + 1) % self.cfg.run.log_every == 0)
            yield step, batch, views

    def _with_views(
        self, read: Iterator[tuple[int, TileBatch]]
    ) -> Iterator[tuple[int, TileBatch, list[Views]]]:
        """Where CPU cores are left over, a thread makes the views of a step while the step before is learnt from."""
        if (
            self.device.type == "cpu"
            and _cores() > self.cfg.run.threads
            and not self.method.draws_in_loss
        ):
            yield from self.pace.timed(self._views_ahead(read))
            return
        for step, batch in self.pace.timed(read):
            moved = batch.to(self.device)
            yield step, moved, self._views(step, moved)

    def _views_ahead(
        self, read: Iterator[tuple[int, TileBatch]]
    ) -> Iterator[tuple[int, TileBatch, list[Views]]]:
        with ThreadPoolExecutor(1) as pool:
            made: tuple[int, TileBatch, Future[list[Views]]] | None = None
            for step, batch in read:
                begun = step, batch, pool.submit(self._views, step, batch)
                if made:
                    yield made[0], made[1], made[2].result()
                made = begun
            if made:
                yield made[0], made[1], made[2].result()

    def _views(self, step: int, batch: TileBatch) -> list[Views]:
        # the generator is one, and a step that went wrong asks for its views again
        with self.views_lock:
            self.plan.generator.manual_seed(self._seed(step))
            return [self.method.views(part) for part in self._parts(batch)]

    def _seed(self, step: int) -> int:
        """The views' generator is alike in all processes.

        They draw for the joint batch and take their share.
        """
        return (self.cfg.seed * 1_000_003 + step) * 8191

    def _parts(self, batch: TileBatch) -> list[TileBatch]:
        count = self.cfg.optim.accumulate
        return batch.parts(count) if count > 1 else [batch]

    def exchange(self, part: int) -> AbstractContextManager[Any]:
        """The context in which a part of a batch goes through.

        Processes exchange gradients in the last alone.
        """
        alone = part + 1 < self.cfg.optim.accumulate and isinstance(
            self.forward, DistributedDataParallel
        )
        return self.forward.no_sync() if alone else nullcontext()  # type: ignore[operator]

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes in bf16 where the config says so."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def good(self, step: int, batch: TileBatch, loss: Tensor, norm: Tensor) -> bool:
        """Whether loss and gradient are finite in every process; if not, the step leaves no trace.

        Also asks whether to stop.
        """
        verdict = agree(loss, norm, stop=self._wants_stop())
        self.stopping = verdict.stop
        if verdict.finite:
            self.guard.passed()
            return True
        values_now = f"loss {float(loss):.4g}, gradient norm {float(norm):.4g}"
        culprit = first_not_finite(self.method, lambda: self._again(step, batch))
        self.monitor.write(
            "skipped",
            step + 1,
            {"loss": float(loss), "grad_norm": float(norm), "culprit": culprit},
            words="",
        )
        self.guard.refuse(step, batch, self.corpus, culprit, values_now)
        return False

    def _again(self, step: int, batch: TileBatch) -> None:
        torch.manual_seed(self._seed(step) + distributed.rank())
        for views in self._views(step, batch):
            with self.autocast():
                self.method.loss(views, step)

    def _wants_stop(self) -> bool:
        minutes = self.cfg.run.minutes
        late = minutes is not None and time.monotonic() - self.began >= 60 * minutes
        return late or self.request.signal is not None

    def report(self, step: int, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        """A log line now and then; k-NN now and then; a checkpoint now and then, and before a stop."""
        r = self.cfg.run
        if (step + 1) % r.log_every == 0:
            self._log(step, loss, norm, logs)
        if r.knn_every and (step + 1) % r.knn_every == 0:
            self.report_knn(step + 1)
        if (step + 1) % r.checkpoint_every == 0 or self.stopping:
            self.save(step + 1)

    def _log(self, step: int, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        values = {
            **self._over_processes({"loss": float(loss), **{k: float(v) for k, v in logs.items()}}),
            "grad_norm": float(norm),
        }
        values |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.features.spread(self._tiles_here()),
        }
        rate, wait = self.pace.look()
        values |= {"tiles_per_s": rate, "data_wait": wait, "memory_mb": peak_memory_mb(self.device)}
        self.monitor.write("train", step + 1, values, words=self._in_words(step + 1, values))
        for name, words in self.alarms.look(step + 1, values) if distributed.rank() == 0 else ():
            self.monitor.write("alarm", step + 1, {"alarm": name, "words": words}, words="")
            log.warning("ALARM at step %d, %s: %s", step + 1, name, words)

    def _tiles_here(self) -> int:
        return self.cfg.data.batch // (distributed.world() * self.cfg.optim.accumulate)

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if distributed.world() == 1:
            return values
        means = distributed.mean(torch.tensor(list(values.values()), device=self.device))
        return dict(zip(values, means.tolist(), strict=True))

    def _in_words(self, step: int, values: dict[str, float]) -> str:
        left = (self.cfg.optim.steps - step) * self.cfg.data.batch / values["tiles_per_s"]
        if self.cfg.run.minutes:
            left = min(left, max(60 * self.cfg.run.minutes - (time.monotonic() - self.began), 0.0))
        own = {
            k: v
            for k, v in values.items()
            if k not in ("tiles_per_s", "data_wait", "memory_mb", "lr")
        }
        figures = "  ".join(f"{k} {v:.3g}" for k, v in own.items())
        steps = self.cfg.optim.steps
        speed = (
            f"{values['tiles_per_s']:.0f} tiles/s  wait {values['data_wait']:.0%}  {duration(left)}"
            " left"
        )
        return f"step {step}/{steps} ({step / steps:.0%})  {figures}  {speed}"

    def report_knn(self, step: int) -> None:
        """Spread of the embeddings and k-NN on labelled train parts."""
        if not self.cfg.run.knn_sets:
            return
        spec = make.spec_of(self.cfg.backbone, self.cfg.export)
        if self.labelled is None:
            px = min(112, spec.input_size) if not spec.prefix_tokens else spec.input_size
            self.labelled = [labelled_set(folder, spec, px=px) for folder in self.cfg.run.knn_sets]
        self.monitor.write("knn", step, knn_report(self.method.encoder(), spec, self.labelled))
        self.pace.restart()

    def save(self, step: int) -> None:
        """A checkpoint from which step `step` is the next."""
        checkpoint.save(
            self.folder,
            step,
            self.method,
            self.optimizer,
            config.result_changing(config.dump(self.cfg)),
        )
        self.pace.restart()

    def finish(self, step: int) -> Path:
        """Last k-NN and the exported encoder.

        After a signal nothing but a word, for time is short then.
        """
        steps = self.cfg.optim.steps
        if self.request.signal and step < steps:
            log.warning(
                "stopped by %s after step %d of %d; the same command goes on from there",
                self.request.signal,
                step,
                steps,
            )
            return self.folder
        if not (
            self.stopping or checkpoint.latest(self.folder) == checkpoint.path_of(self.folder, step)
        ):
            self.save(step)
        self.report_knn(step)
        folder = self._export(step)
        log.info(
            "%s after %d of %d steps: %s",
            "done" if step >= steps else "stopped",
            step,
            steps,
            folder,
        )
        return self.folder

    def _export(self, step: int) -> Path:
        target = self.folder / "export"
        own_network = self.cfg.method.own_network
        # all processes must take part
        weights = {} if own_network else parallel.full_state(self.method.encoder())
        if distributed.rank() != 0:
            return target
        if own_network:
            return self.method.export(target)
        network = make.make_backbone(self.cfg.backbone.model_copy(update={"start": None}))
        network.load_state_dict(weights)
        share = self.cfg.export.start_share
        if share:
            network = make.averaged(network, self.plan.backbone(), share)
        return export(self.cfg, network, self.corpus, target, steps=[step])


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
