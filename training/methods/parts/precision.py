"""Losses in float32, also where the run uses autocast.

Under autocast a matrix product converts its inputs to bf16, whatever dtype they have: `x.float()`
before it has no effect. Features are computed under autocast, losses outside of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_HALF = (torch.bfloat16, torch.float16)


def in_fp32(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what is computed from features: losses, targets and logits of unit vectors.

    Args:
        function: Any function of tensors.

    Returns:
        The function without autocast, whose bf16 and fp16 arguments (also inside tuples, lists
        and data classes) are converted to float32. float32 and float64 stay as they are.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((t.device.type for t in _tensors((args, kwargs))), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*_widened(args), **_widened(kwargs))

    return wrapped


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for part in _parts(value):
        yield from _tensors(part)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    return _fields(value) if _is_data(value) else []


def _widened(value: Any) -> Any:
    """The same value with float32 instead of bf16 and fp16."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, tuple | list):
        return type(value)(_widened(v) for v in value)
    if isinstance(value, dict):
        return {k: _widened(v) for k, v in value.items()}
    if _is_data(value):
        fields = {f.name: _widened(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _is_data(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(value: Any) -> list[Any]:
    return [getattr(value, f.name) for f in dataclasses.fields(value)]
