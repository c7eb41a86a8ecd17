"""The two sides of train_step.py: generators that take one training step at a time.

Each yields the seconds for which it waited for data. Ours is the package's run, as
`python -m training.pretrain` does it. Lightly's is the plain loop that its documentation shows for
each method, made of its dataset, transforms, heads, losses and update_momentum. Tiles, crops,
batch, head sizes and worker counts are the same, and so are the kinds of augmentation: crops,
flips, quarter turns, colour, grey, blur, normalisation.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import compat

HIDDEN = {"dino": 1024, "simclr": 512, "byol": 1024}
OUT = {"dino": 128, "simclr": 128, "byol": 256}
PROTOTYPES = 2048
MEAN = STD = (0.5, 0.5, 0.5)
ENDLESS = 1_000_000  # steps


@dataclass(frozen=True)
class Case:
    """What both sides train: a method and a timm network on the same tiles.

    Attributes:
        px: Side of the large crops.
        local_px: Side of the small crops.
        locals_: Small crops per tile.
    """

    method: str
    architecture: str
    args: dict[str, Any]
    px: int
    local_px: int
    locals_: int
    batch: int
    workers: int
    device: str
    shards: Path  # a tar of JPEG tiles and its manifest
    images: Path  # the same JPEG tiles as files
    out: Path


def ours(case: Case, *, defaults: bool, fp32: bool = False) -> Generator[float, None, None]:
    """Our loop.

    Args:
        case: What is trained.
        defaults: Whether to use channels_last and the fastest precision, instead of torch's
            default layout and float32.
        fp32: float32 in spite of `defaults`.
    """
    from training import config
    from training.pretrain import _backward
    from training.trainer.optimizer import clip, set_rates
    from training.trainer.prepare import opened
    from training.trainer.signals import StopRequest

    cfg = config.check(_our_settings(case, defaults=defaults, fp32=fp32))
    with opened(cfg, StopRequest()) as run:
        if not defaults:
            _plain_layout(run.method)
        feed = run.batches()
        while True:
            asked = time.perf_counter()
            step, batch, views = next(feed)
            waited = time.perf_counter() - asked
            set_rates(run.optimizer, cfg, step)
            loss, logs = _backward(run, views, step)
            norm = clip(list(run.method.parameters()), cfg.optim.clip)
            if run.good(step, batch, loss, norm):
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)
                run.method.after_step(step)
            run.report(step, loss, norm, logs)
            yield waited


def _our_settings(case: Case, *, defaults: bool, fp32: bool) -> dict[str, Any]:
    crop = {"count": 2, "px": case.px, "area": [0.3, 1.0]}
    local = {"count": case.locals_, "px": case.local_px, "area": [0.08, 0.3]}
    method: dict[str, Any] = {"name": case.method, "hidden": HIDDEN[case.method]}
    if case.method == "dino":
        method |= {
            "global_crops": crop,
            "local_crops": local,
            "bottleneck": OUT["dino"],
            "prototypes": PROTOTYPES,
        }
    else:
        method |= {"crop": crop, "out": OUT[case.method]}
    return {
        "method": method,
        "data": {"root": str(case.shards), "canvas": 256, "batch": case.batch},
        "backbone": {"architecture": case.architecture, "args": case.args, "input_size": case.px},
        "optim": {"steps": ENDLESS, "precision": "auto" if defaults and not fp32 else "fp32"},
        "run": {
            "out": str(case.out),
            "loaders": max(case.workers, 1),
            "loader_processes": case.workers if case.device == "cuda" else 0,
            "threads": torch.get_num_threads(),
            "checkpoint_every": ENDLESS,
            "device": case.device,
            "compile": defaults and case.device == "cuda",
        },
    }


def _plain_layout(method: Any) -> None:
    method.to(memory_format=torch.contiguous_format)
    made = method.views
    method.views = lambda batch: [v.contiguous() for v in made(batch)]


def lightly(case: Case, *, defaults: bool, fp32: bool = False) -> Generator[float, None, None]:
    """Lightly's loop; with `defaults`, in our layout (channels_last) and precision."""
    from training.trainer import parallel

    compat.import_timm()  # before torchvision, which lightly imports
    device = torch.device(case.device)
    method = {"dino": LightlyDino, "simclr": LightlySimCLR, "byol": LightlyByol}[case.method](
        case
    ).to(device)
    layout = torch.channels_last if defaults else torch.contiguous_format
    method.to(memory_format=layout)
    bf16 = defaults and not fp32 and parallel.gains_from_bf16(method, device)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-4)
    feed, step = _lightly_batches(case), 0
    while True:
        asked = time.perf_counter()
        views = next(feed)
        waited = time.perf_counter() - asked
        views = [v.to(device, memory_format=layout, non_blocking=True) for v in views]
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = method.loss(views, step)
        loss.backward()
        method.before_update()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        yield waited


def _lightly_batches(case: Case) -> Iterator[list[Tensor]]:
    from lightly.data import LightlyDataset
    from torch.utils.data import DataLoader

    dataset = LightlyDataset(str(case.images), transform=_lightly_transform(case))
    kept: dict[str, Any] = {"num_workers": case.workers, "persistent_workers": case.workers > 0}
    if case.workers and "fork" in multiprocessing.get_all_start_methods():
        # as a script on Linux has it; this process was spawned
        kept["multiprocessing_context"] = "fork"
    loader = DataLoader(dataset, batch_size=case.batch, shuffle=True, drop_last=True, **kept)
    while True:
        for batch in loader:
            yield batch[0]


def _lightly_transform(case: Case) -> Any:
    from lightly.transforms import BYOLTransform, BYOLView1Transform, DINOTransform, SimCLRTransform

    shared: dict[str, Any] = {
        "vf_prob": 0.5,
        "rr_prob": 0.5,
        "cj_prob": 1.0,
        "random_gray_scale": 0.1,
        "sigmas": (0.5, 1.0),
    }
    shared["normalize"] = {"mean": list(MEAN), "std": list(STD)}
    if case.method == "dino":
        crops = {
            "global_crop_size": case.px,
            "global_crop_scale": (0.3, 1.0),
            "local_crop_size": case.local_px,
        }
        crops |= {"local_crop_scale": (0.08, 0.3), "n_local_views": case.locals_}
        return DINOTransform(
            **crops, gaussian_blur=(0.2, 0.2, 0.2), solarization_prob=0.0, **shared
        )
    view = {"input_size": case.px, "min_scale": 0.3, "gaussian_blur": 0.2, **shared}
    if case.method == "simclr":
        return SimCLRTransform(**view)
    return BYOLTransform(BYOLView1Transform(**view), BYOLView1Transform(**view))


def _backbone(case: Case) -> tuple[nn.Module, int]:
    network = compat.import_timm().create_model(case.architecture, num_classes=0, **case.args)
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


class LightlyDino(nn.Module):
    """Student and teacher of lightly's parts; a forward a view, as its example does."""

    def __init__(self, case: Case) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        super().__init__()
        backbone, width = _backbone(case)
        sizes = (width, HIDDEN["dino"], OUT["dino"], PROTOTYPES)
        self.student_backbone, self.student_head = (
            backbone,
            DINOProjectionHead(*sizes, freeze_last_layer=1),
        )
        self.teacher_backbone, self.teacher_head = (
            copy.deepcopy(backbone),
            DINOProjectionHead(*sizes),
        )
        for p in (*self.teacher_backbone.parameters(), *self.teacher_head.parameters()):
            p.requires_grad = False
        self.criterion = DINOLoss(output_dim=PROTOTYPES)

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        """The teacher's update comes first in the example's loop."""
        from lightly.models.utils import update_momentum

        update_momentum(self.student_backbone, self.teacher_backbone, m=0.99)
        update_momentum(self.student_head, self.teacher_head, m=0.99)
        with torch.no_grad():
            teacher = [self.teacher_head(self.teacher_backbone(v).flatten(1)) for v in views[:2]]
        student = [self.student_head(self.student_backbone(v).flatten(1)) for v in views]
        result: Tensor = self.criterion(teacher, student, epoch=0)
        return result

    def before_update(self) -> None:
        """The last layer rests in the first epoch."""
        self.student_head.cancel_last_layer_gradients(current_epoch=1)


class LightlySimCLR(nn.Module):
    """Backbone and projection head of lightly's parts."""

    def __init__(self, case: Case) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.backbone, width = _backbone(case)
        self.head = SimCLRProjectionHead(width, HIDDEN["simclr"], OUT["simclr"])
        self.criterion = NTXentLoss(temperature=0.2)

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        """A forward a view."""
        z0, z1 = (self.head(self.backbone(v).flatten(1)) for v in views)
        result: Tensor = self.criterion(z0, z1)
        return result

    def before_update(self) -> None:
        """Nothing."""


class LightlyByol(nn.Module):
    """Online and momentum networks of lightly's parts."""

    def __init__(self, case: Case) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__()
        self.backbone, width = _backbone(case)
        self.projection = BYOLProjectionHead(width, HIDDEN["byol"], OUT["byol"])
        self.prediction = BYOLPredictionHead(OUT["byol"], HIDDEN["byol"], OUT["byol"])
        self.momentum_backbone, self.momentum_projection = (
            copy.deepcopy(self.backbone),
            copy.deepcopy(self.projection),
        )
        for p in (*self.momentum_backbone.parameters(), *self.momentum_projection.parameters()):
            p.requires_grad = False
        self.criterion = NegativeCosineSimilarity()

    def loss(self, views: list[Tensor], step: int) -> Tensor:
        """The momentum networks' update comes first in the example's loop."""
        from lightly.models.utils import update_momentum

        update_momentum(self.backbone, self.momentum_backbone, m=0.99)
        update_momentum(self.projection, self.momentum_projection, m=0.99)
        p0, p1 = (self.prediction(self.projection(self.backbone(v).flatten(1))) for v in views)
        with torch.no_grad():
            z0, z1 = (self.momentum_projection(self.momentum_backbone(v).flatten(1)) for v in views)
        result: Tensor = 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))
        return result

    def before_update(self) -> None:
        """Nothing."""
