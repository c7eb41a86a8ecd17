"""Import timm where the installed torchvision does not fit the installed torch.

PyPI's torchvision wheel links CUDA. With a CPU-only torch its compiled operators cannot load, and
`import torchvision` fails on the first missing operator schema ("operator torchvision::nms does
not exist"). timm imports torchvision unconditionally. Declaring the missing schemas is enough for
everything that timm uses.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

_SCHEMAS = ("nms", "qnms")
# a torch.library.Library removes its schemas when it is garbage-collected
_kept_alive: list[Any] = []


@functools.cache
def import_timm() -> ModuleType:
    """Import timm after making torchvision importable; later calls return the same module."""
    _ensure_torchvision()
    return importlib.import_module("timm")


def _ensure_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_schemas()
        importlib.import_module("torchvision")


def _declare_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)
