"""Import timm: fast, and where the installed torchvision does not fit the installed torch.

torchvision and timm import torch's compiler (torch._dynamo, with sympy) for one function and one
decorator: that is half of the time of their import, and 70 MB. It is put off until it is used.

PyPI's torchvision wheel links CUDA. With a CPU-only torch its compiled operators cannot load, and
`import torchvision` fails on the first missing operator schema ("operator torchvision::nms does
not exist"). timm imports torchvision unconditionally. Declaring the missing schemas is enough for
everything that timm uses.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

_SCHEMAS = ("nms", "qnms")
_DYNAMO = "torch._dynamo"
_UTILS = f"{_DYNAMO}.utils"
# a torch.library.Library removes its schemas when it is garbage-collected
_kept_alive: list[Any] = []


@functools.cache
def import_timm() -> ModuleType:
    """Import timm after making torchvision importable; later calls return the same module."""
    with _compiler_put_off():
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


@contextlib.contextmanager
def _compiler_put_off() -> Iterator[None]:
    """Stand-ins for what torchvision and timm take of torch's compiler while they are imported."""
    import torch

    if _DYNAMO in sys.modules:
        yield
        return
    disable = torch.compiler.disable
    sys.modules[_UTILS] = _Utils(_UTILS)
    torch.compiler.disable = _put_off(disable)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if isinstance(sys.modules.get(_UTILS), _Utils):
            del sys.modules[_UTILS]


class _Utils(ModuleType):
    """torch._dynamo.utils, imported when anything is taken of it but this function."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """As there; torchvision's operators call it."""
        return importlib.import_module(_UTILS).is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_UTILS) is self:
            del sys.modules[_UTILS]
        return getattr(importlib.import_module(_UTILS), name)


def _put_off(disable: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as torch.compiler.disable, which takes effect once the compiler is imported."""

    def decorate(function: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
        if function is None:
            return functools.partial(decorate, **options)

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            if _DYNAMO not in sys.modules:
                return function(*given, **named)
            return disable(function, *args, **options)(*given, **named)

        return call

    return decorate


def _declare_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)
