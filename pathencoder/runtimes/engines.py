"""The runtimes that there are, the fastest for fp32 first."""

from __future__ import annotations

from pathencoder.runtimes import onnx, openvino
from pathencoder.runtimes.engine import Engine

ENGINES: tuple[Engine, ...] = (onnx.ENGINE, openvino.ENGINE)


def engine(name: str) -> Engine:
    """The runtime of that name."""
    return next(one for one in ENGINES if one.name == name)


def engines_for(suffix: str) -> list[Engine]:
    """The runtimes that run files of a suffix."""
    return [one for one in ENGINES if suffix in one.suffixes]
