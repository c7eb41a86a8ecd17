"""OpenVINO, on the CPU."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.runtimes.engine import Engine, Graph

_TELEMETRY = "openvino_telemetry"


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO or NNCF inside the block without their telemetry.

    When they are imported, and when they convert a model, both send usage data unless the user
    objected before. Where the package that sends is not there, they do without.
    """
    if "openvino" in sys.modules and _TELEMETRY in sys.modules:
        yield  # the user's program has imported it itself
        return
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # what an import takes for missing
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def _read(file: Path, threads: int) -> Graph:
    with without_telemetry():
        import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else CPUs with bfloat16 units compute in bfloat16
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    model = openvino.compile_model(file, "CPU", settings)
    own = threading.local()  # a request serves one thread at a time

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(own, "request"):
            own.request = model.create_infer_request()
        found = own.request.infer({0: x}, share_inputs=True)
        return np.array(found[model.output(0)], dtype=np.float32)

    return run


ENGINE = Engine("openvino", "openvino", "openvino", (".xml", ".onnx"), _read)
