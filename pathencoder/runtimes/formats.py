"""Write the readout of an encoder in each format, at fp32."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.module import EncoderModule
from pathencoder.network import has_tokens
from pathencoder.runtimes.graph import exportable
from pathencoder.runtimes.openvino import without_telemetry
from pathencoder.runtimes.unchanged import weights_sha256

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

log = logging.getLogger(__name__)

OPSET = 20
SMALLEST = 64  # px of a side of images of other sizes
_NEEDS = {
    ("onnx", "fp32"): ("onnx", "onnxscript", "onnxruntime"),
    ("onnx", "int8"): ("onnx", "onnxscript", "onnxruntime"),
    ("openvino", "fp32"): ("onnx", "onnxscript", "openvino"),
    ("openvino", "int8"): ("onnx", "onnxscript", "openvino", "nncf"),
}
_ONE_FILE = 1_800_000_000  # bytes of weights up to which ONNX's format holds them itself
_MOST = 4096  # images of a batch, and pixels of a side


def check_installed(form: str, precision: str) -> None:
    """Raise MissingExtra where a package is missing that an export needs."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDS.get((form, precision), ())):
        raise MissingExtra.of("export", f"an export to {form}")


def write(encoder: Encoder, file: Path, form: str) -> bool:
    """Write the readout of an encoder.

    Args:
        encoder: On the CPU, in float32.
        file: Of the export; others may be written beside it.
        form: One of `exported.FORMATS`.

    Returns:
        Whether it takes images of any size, rather than those of the input size alone.

    Raises:
        ConfigError: The network cannot be exported.
    """
    for_onnx = form in ("onnx", "openvino")
    module = exportable(encoder.network, encoder.spec, for_onnx=for_onnx)
    spec = encoder.spec
    about = {"encoder": spec.name, "embedding": spec.embedding, "licence": spec.licence}
    about["weights_sha256"] = str(weights_sha256(spec, encoder.origin))
    with quiet(), torch.no_grad():
        if form == "torchscript":
            return _write_torchscript(module, file)
        program, any_size = _program(module)
        if form == "torch-export":
            torch.export.save(program, file)
        elif form == "onnx":
            _write_onnx(program, file, about)
        else:
            _write_openvino(program, file, about)
    return any_size


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' notes on their own internals."""
    before, levels = logging.root.manager.disable, [(h, h.level) for h in logging.root.handlers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
            for handler, level in levels:  # a library raises those of the caller's handlers
                handler.setLevel(level)


def _program(module: EncoderModule) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace for any number of images, and of any size where the network takes them."""
    if not has_tokens(module.network):
        try:
            return _traced(module, any_size=True), True
        # torch raises many kinds of errors where a size decides what is computed
        except Exception as error:
            log.debug("exported for one size: %s", error)
    try:
        return _traced(module, any_size=False), False
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"torch cannot export {module.spec.name} ({first})") from error


def _traced(module: EncoderModule, *, any_size: bool) -> torch.export.ExportedProgram:
    size = module.spec.input_size
    dim: Any = torch.export.Dim
    free: dict[int, Any] = {0: dim("batch", min=1, max=_MOST)}
    if any_size:
        free |= {
            2: dim("height", min=SMALLEST, max=_MOST),
            3: dim("width", min=SMALLEST, max=_MOST),
        }
    x = torch.zeros(2, 3, size, size + 32 if any_size else size)
    return torch.export.export(
        module,
        (x,),
        dynamic_shapes={"x": free},
        strict=False,
        # conditions on the size that torch cannot prove are checked when it runs
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _write_torchscript(module: EncoderModule, file: Path) -> bool:
    size = module.spec.input_size
    traced: Any = torch.jit.trace(module, torch.zeros(2, 3, size, size), check_trace=False)
    torch.jit.save(traced, file)
    return False


def _write_onnx(
    program: torch.export.ExportedProgram, file: Path, about: Mapping[str, str]
) -> None:
    import onnx

    made = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["embedding"],
        external_data=False,
        optimize=True,
        verbose=False,
    )
    assert made is not None
    model = made.model_proto
    _plain(model)
    onnx.helper.set_model_props(model, {f"pathencoder.{k}": v for k, v in about.items()})
    held = sum(len(one.raw_data) for one in model.graph.initializer)
    if held > _ONE_FILE:
        onnx.save_model(model, file, save_as_external_data=True, location=f"{file.name}.data")
    else:
        file.write_bytes(model.SerializeToString(deterministic=True))


def _plain(model: Any) -> None:
    """Leave out what differs from machine to machine: traces with paths, and names of sizes."""
    graph = model.graph
    del model.metadata_props[:], graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for one in graph.initializer:
        del one.metadata_props[:]
    for values, names in (
        (graph.input[0], ("batch", "", "height", "width")),
        (graph.output[0], ("batch", "")),
    ):
        del values.metadata_props[:]
        for size, name in zip(values.type.tensor_type.shape.dim, names, strict=True):
            if size.dim_param:
                size.dim_param = name


def _write_openvino(
    program: torch.export.ExportedProgram, file: Path, about: Mapping[str, str]
) -> None:
    onnx = file.with_suffix(".onnx")
    _write_onnx(program, onnx, about)
    try:
        convert(onnx, file, "openvino")
    finally:
        for part in onnx.parent.glob(f"{onnx.name}*"):
            part.unlink()


def convert(onnx: Path, file: Path, form: str) -> None:
    """Write an ONNX file in another format, or a copy of it."""
    if form == "onnx":
        for part in (onnx, onnx.with_name(f"{onnx.name}.data")):
            if part.is_file():
                shutil.copyfile(part, file.with_name(part.name))
        return
    with without_telemetry():
        import openvino

    model = openvino.Core().read_model(onnx)
    openvino.save_model(model, file, compress_to_fp16=False)
