"""A run as the training loop uses it: its batches, and what happens after each step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from training import config, distributed
from training.data.loader import TileBatch
from training.methods import Logs
from training.provenance import saved_steps
from training.trainer import sharding
from training.trainer.export import export_method
from training.trainer.feed import Feed, Item, seed_of
from training.trainer.guard import Guard, agree, first_not_finite
from training.trainer.parts import Parts
from training.trainer.reporter import Reporter
from training.trainer.saving import Saver
from training.trainer.throughput import Throughput

log = logging.getLogger("training")


class Run:
    """A run: its parts, and what the loop needs between steps.

    Args:
        parts: What the run is made of.
        first_step: The first step to do.

    Attributes:
        method: The method.
        forward: The method's loss over all processes.
        optimizer: Its optimiser.
        parameters: The trainable parameters.
        first_step: The first step to do.
        stopping: Whether the time limit or a signal ends the run after this step.
        device: The device of this process.
    """

    def __init__(self, parts: Parts, *, first_step: int) -> None:
        self.method, self.forward, self.optimizer = parts.method, parts.forward, parts.optimizer
        self.parameters = [p for p in parts.method.parameters() if p.requires_grad]
        self.first_step, self.stopping, self.device = first_step, False, parts.device
        self._parts, self._cfg, self._folder = parts, parts.cfg, parts.cfg.run.out
        self._guard = Guard(parts.method, self._folder, in_a_row=self._cfg.run.bad_batches)
        self._saver = Saver(
            self._folder,
            keep_every=self._cfg.run.keep_every,
            background=self._in_background(),
        )
        self._throughput = Throughput(self._cfg.data.batch)
        self._feed = Feed(parts, self._throughput)
        self._reporter = Reporter(parts, self._throughput)

    def batches(self) -> Iterator[Item]:
        """The steps that are left: step, batch on the device, views of each of its parts."""
        for step, batch, views in self._feed.items(self.first_step):
            self._seed(step)
            self._guard.remember()
            self._reporter.before(step)
            yield step, batch, views

    def exchange(self, part: int) -> AbstractContextManager[Any]:
        """The context for a part of a batch; gradients are exchanged only in the last part."""
        last = part + 1 == self._cfg.optim.accumulate
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes: bf16 if the config asks for it."""
        dtype = self._parts.dtype
        return torch.autocast(self._parts.device.type, dtype) if dtype else nullcontext()

    def good(self, step: int, batch: TileBatch, loss: Tensor, norm: Tensor) -> bool:
        """Whether loss and gradient are finite in every process.

        If not, what the step changed is undone. Also updates `stopping`.

        Args:
            step: The step.
            batch: Its batch.
            loss: Its loss, a scalar.
            norm: Its gradient norm, a scalar.

        Raises:
            PathEncoderError: Too many bad batches in a row.
        """
        verdict = agree(loss, norm, stop=self._wants_stop())
        self.stopping = verdict.stop
        if verdict.finite:
            self._guard.passed()
            return True
        culprit = first_not_finite(self.method, lambda: self._again(step, batch))
        figures = {"loss": float(loss), "grad_norm": float(norm)}
        self._parts.monitor.write("skipped", step + 1, {**figures, "culprit": culprit}, words="")
        values = f"loss {float(loss):.4g}, gradient norm {float(norm):.4g}"
        self._guard.refuse(step, batch, self._parts.corpus, culprit, values)
        return False

    def report(self, step: int, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        """Write log line, k-NN accuracy and checkpoint if they are due; a checkpoint before a stop.

        Args:
            step: The step that is done.
            loss: Its loss, a scalar.
            norm: Its gradient norm, a scalar.
            logs: What the method logs.
        """
        self._reporter.after(step, loss, norm, logs)
        every = (self._cfg.run.checkpoint_every, self._cfg.run.keep_every)
        due = any(n and (step + 1) % n == 0 for n in every)
        # between bad batches the run may be diverging: the last checkpoint is one from before them
        if self.stopping or (due and not self._guard.bad_in_a_row):
            self._save(step + 1)

    def report_knn(self, step: int) -> None:
        """Log k-NN accuracy on labelled train parts."""
        self._reporter.knn(step)

    def finish(self, step: int) -> Path:
        """End the run: a checkpoint, k-NN accuracy and the exported encoder.

        After a signal only a message, as the process may be killed soon.

        Args:
            step: Steps that are done.

        Returns:
            The run's folder.
        """
        steps, signal = self._cfg.optim.steps, self._parts.request.signal
        self._saver.wait()
        if signal and step < steps:
            log.warning(
                "stopped by %s after step %d of %d; the same command resumes", signal, step, steps
            )
            return self._folder
        newest = saved_steps.latest(self._folder)
        if not (self.stopping or newest == saved_steps.path_of(self._folder, step)):
            self._save(step)
            self._saver.wait()
        self.report_knn(step)
        folder = self._export(step)
        if step < steps and not self.method.converged:
            rate = self.optimizer.param_groups[0]["lr"]
            log.warning(
                "stopped after %d of %d steps, at learning rate %.2g: the schedule has not ended,"
                " and the export says so. The same command goes on. To fit the schedule to the"
                " time, start a run with minutes= and without steps=",
                step,
                steps,
                rate,
            )
        word = "done" if step >= steps else "stopped"
        log.info("%s after %d of %d steps: %s", word, step, steps, folder)
        return self._folder

    def close(self) -> None:
        """Wait for a checkpoint that is still being written."""
        self._saver.close()

    def _in_background(self) -> bool:
        """Whether checkpoints are written while the run goes on; by default sharded ones are."""
        asked = self._cfg.run.save_in_background
        return sharding.applies(self._cfg.run.parallel) if asked is None else asked

    def _seed(self, step: int) -> None:
        torch.manual_seed(seed_of(self._cfg, step) + distributed.rank())

    def _again(self, step: int, batch: TileBatch) -> None:
        """Repeat the forward pass of a step."""
        self._seed(step)
        for views in self._feed.views(step, batch):
            with self.autocast():
                self.method.loss(views, step)

    def _wants_stop(self) -> bool:
        minutes = self._cfg.run.minutes
        late = minutes is not None and self._reporter.seconds >= 60 * minutes
        return late or self._parts.request.signal is not None

    def _save(self, step: int) -> None:
        """Write a checkpoint; a run that is resumed from it starts with `step`."""
        about = {
            "settings": config.settings_of_run(self._cfg, half=self._parts.dtype is not None),
            "provenance": self._parts.provenance.to_json(),
        }
        self._saver.save(step, self.method, self.optimizer, about)
        self._throughput.restart()

    def _export(self, step: int) -> Path:
        return export_method(
            self._cfg,
            self.method,
            self._parts.provenance,
            self._folder / "export",
            step=step,
            start=self._parts.plan.backbone,
        )
