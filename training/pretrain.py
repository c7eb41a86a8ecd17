"""Pretraining: python -m training.pretrain RECIPE.yaml [key=value ...]

The loop in `train` is the whole algorithm; everything random in step s follows from (seed, s), so a resumed run is the same run.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pathencoder.errors import PathEncoderError
from training import allocator, backbones, checkpoint, config, distributed, methods
from training.data.corpus import Corpus, open_corpus
from training.data.loader import batches
from training.data.sampler import Sampler
from training.export import export
from training.monitor import Monitor, knn_report, labelled_set, peak_memory_mb
from training.schedules import cosine, warmup_cosine
from training.start import sampler_of, starting_network

log = logging.getLogger("training")


def train(cfg: config.Config) -> Path:
    """Run a config to its last step or its time limit; returns the run's folder."""
    run = _prepare(cfg)
    step, limit = run.step - 1, _time_limit(cfg)
    run.report_knn(run.step)
    for step, batch in run.batches():
        _seed(run, step)
        _set_rates(run.optimizer, cfg, step)
        views = run.method.views(batch)
        loss, logs = run.method.loss(views, step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(run.method.parameters(), cfg.optim.clip)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.method.after_step(step)
        run.report(step, loss, norm, logs)
        if (step + 1) % cfg.run.checkpoint_every == 0 or limit():
            run.save(step + 1)
        if limit() or getattr(run.method, "converged", False):
            break
    return run.finish(step + 1)


@dataclass
class Run:
    """Everything that a run holds. `step` is the first step to be done."""

    cfg: config.Config
    folder: Path
    corpus: Corpus
    sampler: Sampler
    method: Any  # a methods.Method that is an nn.Module
    optimizer: torch.optim.Optimizer
    monitor: Monitor
    device: torch.device
    generator: torch.Generator
    step: int
    seen_at: tuple[int, float]

    def batches(self) -> Any:
        """(step, batch on the device) from the step to be done to the last."""
        d, n = self.cfg.data, self.cfg.optim.steps
        share = {"rank": distributed.rank(), "world": distributed.world(), "threads": self.cfg.run.threads}
        for step, batch in batches(self.corpus, self.sampler, canvas=d.canvas, start=self.step, stop=n, **share):
            yield step, batch.to(self.device)

    def report(self, step: int, loss: Tensor, norm: Tensor, logs: dict[str, float]) -> None:
        """A log line now and then; k-NN now and then."""
        if (step + 1) % self.cfg.run.log_every == 0:
            before, then = self.seen_at
            now = time.monotonic()
            rate = (step + 1 - before) * self.cfg.data.batch / (now - then)
            self.seen_at = step + 1, now
            values = {"loss": loss.item(), **logs, "grad_norm": norm.item(), "lr": self.optimizer.param_groups[0]["lr"]}
            self.monitor.write("train", step + 1, {**values, "tiles_per_s": rate, "memory_mb": peak_memory_mb()})
        if self.cfg.run.knn_every and (step + 1) % self.cfg.run.knn_every == 0:
            self.report_knn(step + 1)

    def report_knn(self, step: int) -> None:
        """Spread of the embeddings and k-NN on labelled train parts."""
        if not self.cfg.run.knn_sets:
            return
        spec = backbones.spec_of(self.cfg.backbone, self.cfg.export)
        px = 112
        sets = [labelled_set(folder, spec, px=px) for folder in self.cfg.run.knn_sets]
        self.monitor.write("knn", step, knn_report(self.method.encoder(), spec, sets))

    def save(self, step: int) -> None:
        """A checkpoint from which step `step` is the next."""
        checkpoint.save(self.folder, step, self.method, self.optimizer, config.result_changing(config.dump(self.cfg)))

    def finish(self, step: int) -> Path:
        """Last k-NN and the exported encoder."""
        self.save(step)
        self.report_knn(step)
        self.monitor.close()
        target = self.folder / "export"
        own = getattr(self.method, "export", None)  # a method whose network is no encoder writes its own folder
        folder = own(target) if own else export(self.cfg, self._exported(), self.corpus, target, steps=step)
        log.info("%s after %d of %d steps: %s", "done" if step >= self.cfg.optim.steps else "stopped", step, self.cfg.optim.steps, folder)
        return self.folder

    def _exported(self) -> nn.Module:
        """The method's encoder, averaged with its start where the config asks for it."""
        encoder: nn.Module = self.method.encoder()
        share = self.cfg.export.start_share
        return backbones.averaged(encoder, self.method.plan.backbone(), share) if share else encoder


def _prepare(cfg: config.Config) -> Run:
    torch.set_num_threads(cfg.run.threads)
    torch.manual_seed(cfg.seed)
    device = distributed.device_of(cfg.run.device)
    d = cfg.data
    corpus = open_corpus(d.root, licences=d.licences, stains=d.stains, without=d.without)
    sampler = sampler_of(cfg, corpus)
    generator = torch.Generator(device)
    method = methods.build(cfg.method, _plan(cfg, corpus, sampler, generator)).to(device).train()
    optimizer = torch.optim.AdamW(_groups(method, cfg), lr=cfg.optim.lr, fused=True)
    folder = cfg.run.out
    _write_identity(cfg, corpus, folder)
    newest = checkpoint.latest(folder)
    step = checkpoint.load(newest, method, optimizer, config.result_changing(config.dump(cfg))) if newest else 0
    log.info("%d tiles of %d slides; %s, steps %d to %d", len(corpus), len(corpus.slide_names), cfg.method.name, step, cfg.optim.steps)
    return Run(cfg, folder, corpus, sampler, method, optimizer, Monitor(folder), device, generator, step, (step, time.monotonic()))


def _plan(cfg: config.Config, corpus: Corpus, sampler: Sampler, generator: torch.Generator) -> methods.Plan:
    start = starting_network(cfg, corpus, sampler)
    state = start.state_dict()

    def backbone() -> nn.Module:
        network = backbones.make_backbone(cfg.backbone)
        network.load_state_dict(state)
        return network

    b, width = cfg.backbone, int(start.num_features)  # type: ignore[arg-type]
    width = int(getattr(start, "head_hidden_size", width))
    return methods.Plan(backbone, width, cfg.optim.steps, cfg.data.batch, len(corpus), b.mean, b.std, generator)


def _groups(method: Any, cfg: config.Config) -> list[dict[str, Any]]:
    """Parameter groups: backbone and head rates; no decay on vectors (biases, norms)."""
    inside = {id(p) for p in method.backbone.parameters()}
    groups = []
    for is_backbone, rate in ((True, cfg.optim.lr), (False, cfg.optim.head_lr)):
        for decays in (True, False):
            chosen = [p for p in method.parameters() if p.requires_grad and (id(p) in inside) == is_backbone and (p.ndim > 1) == decays]
            groups.append({"params": chosen, "peak": rate, "decays": decays})
    return [g for g in groups if g["params"]]


def _set_rates(optimizer: torch.optim.Optimizer, cfg: config.Config, step: int) -> None:
    o = cfg.optim
    for group in optimizer.param_groups:
        group["lr"] = warmup_cosine(group["peak"], o.lr_end, step, o.steps, o.warmup)
        group["weight_decay"] = cosine(*o.weight_decay, step, o.steps) if group["decays"] else 0.0


def _seed(run: Run, step: int) -> None:
    """Everything random in a step follows from seed, step and rank."""
    seed = (run.cfg.seed * 1_000_003 + step) * 8191 + distributed.rank()
    torch.manual_seed(seed)
    run.generator.manual_seed(seed)


def _time_limit(cfg: config.Config) -> Callable[[], bool]:
    end = time.monotonic() + 60 * cfg.run.minutes if cfg.run.minutes else None
    return lambda: end is not None and time.monotonic() >= end


def _write_identity(cfg: config.Config, corpus: Corpus, folder: Path) -> None:
    """config.yaml and data.json: what the run is, for whoever finds the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.dump(cfg), sort_keys=False))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    about = {"tiles": len(corpus), "slides": len(corpus.slide_names), "sha256_of_keys": corpus.digest, "git_commit": commit or None}
    (folder / "data.json").write_text(json.dumps({**about, "torch": torch.__version__}, indent=1))


def main(arguments: list[str]) -> int:
    """Exit status: 0 done or stopped at its time limit, 1 failed, 2 wrong usage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    allocator.keep_freed_memory()
    try:
        train(config.load(Path(arguments[0]), arguments[1:]))
    except PathEncoderError as error:
        log.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
