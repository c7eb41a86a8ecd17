"""A runtime that needs no library, and exported files of it, for tests."""

import dataclasses

import numpy as np

from pathencoder.pretrained.folder import sha256_of
from pathencoder.runtimes import choose, engines
from pathencoder.runtimes.engine import Engine
from pathencoder.runtimes.exported import Exported

ROWS = np.arange(256, dtype=np.float32)


def use_engine(monkeypatch, *, installed=True, fails=False):
    """Let there be one runtime, onnx, whose graph gives ROWS for every image."""

    def read(file, threads):
        if fails:
            raise RuntimeError("Opset 99 is not supported\nat line 3")
        return lambda x: np.tile(ROWS, (len(x), 1))

    module = "json" if installed else "no_such_module"
    made = Engine("onnx", "onnx", module, (".onnx",), read)
    for place in (choose, engines):
        monkeypatch.setattr(place, "ENGINES", (made,))


def write_graph(folder, spec, *, precision="fp32", content=b"graph", **changes):
    """The file of an export and its JSON."""
    name = "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    described = Exported(
        encoder=spec.name,
        weights_sha256=spec.sha256,
        embedding=spec.embedding,
        dim=spec.dim,
        format="onnx",
        precision=precision,
        input="",
        input_size=spec.input_size,
        any_size=True,
        mean=spec.mean,
        std=spec.std,
        mpp=spec.mpp,
        licence=spec.licence,
        files={name: sha256_of(folder / name)},
    )
    text = dataclasses.replace(described, **changes).as_json()
    (folder / f"{name}.json").write_text(text)
    return folder / name
