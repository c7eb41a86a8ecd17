"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.runtimes.engine import Engine, Graph


def _read(file: Path, threads: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # threads that wait for work by spinning would take the cores from those that read images
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        (rows,) = session.run(None, {name: x})
        return np.asarray(rows, dtype=np.float32)

    return run


ENGINE = Engine("onnx", "onnx", "onnxruntime", (".onnx",), _read)
