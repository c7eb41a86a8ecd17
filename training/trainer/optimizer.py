"""AdamW for a method: parameter groups, learning rates of a step, gradient clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import Config, OptimSettings
from training.schedules import cosine, linear, warmup_constant, warmup_cosine


def make_optimizer(method: Any, cfg: Config) -> torch.optim.Optimizer:
    """Fused AdamW over all trainable parameters of a method."""
    return torch.optim.AdamW(_groups(method, cfg), lr=cfg.optim.lr, fused=True)


def _groups(method: Any, cfg: Config) -> list[dict[str, Any]]:
    """Groups by learning rate (backbone, heads) and by decay (none on vectors: biases, norms)."""
    inside = {id(p) for p in method.backbone.parameters()}
    groups = []
    for is_backbone, rate in ((True, cfg.optim.lr), (False, cfg.optim.head_lr)):
        for decays in (True, False):
            chosen = [
                p
                for p in method.parameters()
                if p.requires_grad and (id(p) in inside) == is_backbone and (p.ndim > 1) == decays
            ]
            groups.append({"params": chosen, "peak": rate, "decays": decays})
    return [g for g in groups if g["params"]]


def set_rates(optimizer: torch.optim.Optimizer, cfg: Config, step: int) -> None:
    """Set the learning rate and weight decay of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate_of(cfg.optim, group["peak"], step)
        group["weight_decay"] = _weight_decay(cfg.optim, step) if group["decays"] else 0.0


def rate_of(o: OptimSettings, peak: float, step: int) -> float:
    """The learning rate of a step, by the schedule of the settings.

    It ends at lr_end or, if that is higher, at its peak: a rate of 0 stays 0.
    """
    end = min(o.lr_end, peak)
    if o.schedule == "cosine":
        return warmup_cosine(peak, end, step, o.steps, o.warmup)
    return warmup_constant(peak, end, step, o.steps, warmup=o.warmup, cooldown=o.cooldown_steps)


def _weight_decay(o: OptimSettings, step: int) -> float:
    """The weight decay of a step; with a constant rate it changes in the cooldown only."""
    if o.schedule == "cosine":
        return cosine(*o.weight_decay, step, o.steps)
    return linear(*o.weight_decay, step - (o.steps - o.cooldown_steps), o.cooldown_steps)


@torch.no_grad()
def clip(parameters: list[nn.Parameter], most: float) -> Tensor:
    """Scale gradients down to a joint norm of `most`, in place.

    Gradients whose norm is not finite are left unchanged. Nothing is read from the device.

    Args:
        parameters: The trainable parameters, sharded or not.
        most: The largest joint norm.

    Returns:
        The joint norm before, a scalar.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    scale = torch.where(whole.isfinite(), (most / (whole + 1e-6)).clamp(max=1.0), 1.0)
    torch._foreach_mul_([g.to_local() if isinstance(g, DTensor) else g for g in grads], scale)
    return whole
