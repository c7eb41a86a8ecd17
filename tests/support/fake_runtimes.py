"""A runtime that needs no library, and exported files of it, for tests."""

import dataclasses

import numpy as np

from pathencoder.pretrained.folder import sha256_of
from pathencoder.runtimes import choose, engines
from pathencoder.runtimes.engine import Engine
from pathencoder.runtimes.exported import Exported, name_of

ROWS = np.arange(256, dtype=np.float32)


def use_engine(monkeypatch, *, installed=True, fails=False, names=("onnx",)):
    """Let there be one runtime, onnx, or those of the names; their graphs give ROWS for all."""

    def read(file, threads):
        if fails:
            raise RuntimeError("Opset 99 is not supported\nat line 3")
        return lambda x: np.tile(ROWS, (len(x), 1))

    module = "json" if installed else "no_such_module"
    suffixes = {"onnx": (".onnx",), "openvino": (".xml", ".onnx")}
    made = tuple(Engine(name, name, module, suffixes[name], read) for name in names)
    for place in (choose, engines):
        monkeypatch.setattr(place, "ENGINES", made)


def write_graph(folder, spec, *, form="onnx", precision="fp32", content=b"graph", **changes):
    """The file of an export and its JSON."""
    name = name_of(form, precision)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    described = Exported(
        encoder=spec.name,
        weights_sha256=spec.sha256,
        embedding=spec.embedding,
        dim=spec.dim,
        format=form,
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
