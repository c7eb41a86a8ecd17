"""The workaround for a torchvision that cannot load beside this torch, used before timm is imported.

PyPI's torchvision wheel links CUDA. Beside a CPU-only torch its compiled operators cannot load, and `import torchvision`
then fails on the first operator schema that it misses ("operator torchvision::nms does not exist"). timm imports torchvision
unconditionally. Declaring those schemas is enough for everything that timm uses.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

_SCHEMAS = ("nms", "qnms")
# a torch.library.Library takes its schemas with it when it is collected
_kept_alive: list[Any] = []


@functools.cache
def import_timm() -> ModuleType:
    """timm, imported after torchvision has been made importable.

    The import happens once, at the first call.
    """
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
