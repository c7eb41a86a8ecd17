"""Export an encoder: its whole readout as one file, compared with torch before it is kept."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pathencoder._version import __version__
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, PathEncoderError, StoreError
from pathencoder.pretrained.folder import draft_of, publish, refuse_foreign, sha256_of
from pathencoder.runtimes import formats, parity
from pathencoder.runtimes.exported import (
    FORMATS,
    INT8_FORMATS,
    Exported,
    description_of,
    name_of,
    names_of,
    read,
)
from pathencoder.runtimes.quantise import quantise
from pathencoder.runtimes.unchanged import change_of, weights_sha256
from pathencoder.walk import expanded

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

Say = Callable[[str], None]
_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


def export(
    encoder: Encoder,
    folder: Path,
    *,
    form: str = "onnx",
    precision: str = "fp32",
    tiles: Sequence[Pixels] = (),
    say: Say = lambda _: None,
) -> Exported:
    """Write the readout of an encoder as one file, with a JSON beside it.

    Args:
        encoder: As it was loaded, on the CPU, in float32.
        folder: Where the files are written; others there are kept.
        form: One of `exported.FORMATS`.
        precision: "fp32", or "int8" for ONNX and OpenVINO.
        tiles: Of int8: uint8 [S, S, 3] each, the larger part to calibrate and the rest to measure
            the loss.
        say: Called with a sentence before each step.

    Returns:
        What was written.

    Raises:
        ConfigError: A setting is unknown or does not fit, or the export computes other numbers
            than torch.
        MissingExtra: A package that the export needs is not installed.
        StoreError: The files cannot be written.
    """
    _check(encoder, form, precision, tiles)
    formats.check_installed(form, precision)
    target = expanded(folder)
    file = target / name_of(form, precision)
    ours = description_of(file).is_file()
    refuse_foreign(target, names_of(form, precision), "an export with its .json", ours=ours)
    try:
        with draft_of(target) as draft:
            known = _known(encoder, target) if (form, precision) != ("onnx", "fp32") else None
            made = _made(encoder, draft, form, precision, tiles, known, say)
            description = description_of(draft / name_of(form, precision))
            description.write_text(made.as_json(), encoding="utf-8")
            names = [*dict.fromkeys([*made.files, *names_of(form, precision)]), description.name]
            publish(draft, target, names)
    except OSError as error:
        raise StoreError(
            f"cannot write the export to {target}: {error}. Free space there, or choose another"
            " folder"
        ) from error
    return made


def _check(encoder: Encoder, form: str, precision: str, tiles: Sequence[Pixels]) -> None:
    if form not in FORMATS:
        raise ConfigError(f"format {form!r}: one of {', '.join(FORMATS)}")
    if precision not in ("fp32", "int8"):
        raise ConfigError(f"precision {precision!r}: an export is of fp32 or int8")
    if precision == "int8" and form not in INT8_FORMATS:
        raise ConfigError(f"int8 is exported as {' or '.join(INT8_FORMATS)}, not as {form}")
    if precision == "int8" and not tiles:
        raise ConfigError("int8 is calibrated on tiles, and none are given (--calibrate FOLDER)")
    if encoder.device.type != "cpu" or encoder.dtype != torch.float32:
        raise ConfigError("an export needs the encoder on the CPU in float32: device='cpu'")
    if change := change_of(encoder.network, encoder.origin):
        raise ConfigError(
            f"{encoder.spec.name} cannot be exported: {change}. Save it with"
            " encoder.save_pretrained(folder), and export that folder"
        )


def _known(encoder: Encoder, target: Path) -> Path | None:
    """An ONNX file of this encoder, beside its weights or in the target, that saves tracing it."""
    own = weights_sha256(encoder.spec, encoder.origin)
    for folder in (target, encoder.folder):
        file = None if folder is None else folder / name_of("onnx", "fp32")
        if file is None or not file.is_file():
            continue
        try:
            found = read(file)
        except PathEncoderError:
            continue
        if (found.weights_sha256, found.embedding) == (own, encoder.spec.embedding):
            return file
    return None


def _made(
    encoder: Encoder,
    draft: Path,
    form: str,
    precision: str,
    tiles: Sequence[Pixels],
    known: Path | None,
    say: Say,
) -> Exported:
    """Write the file, compare it with torch, and describe it."""
    spec = encoder.spec
    graph = draft / name_of(form, "fp32")
    if known is not None and form in INT8_FORMATS:
        say(f"reading {known}")
        formats.convert(known, graph, form)
        any_size = read(known).any_size
    else:
        say(f"exporting {spec.name} to {form} (about a minute)")
        any_size = formats.write(encoder, graph, form)
    say("comparing it with torch")
    check = parity.check(encoder, graph, form, any_size=any_size)
    described = Exported(
        encoder=spec.name,
        weights_sha256=str(weights_sha256(spec, encoder.origin)),
        embedding=spec.embedding,
        dim=spec.dim,
        format=form,
        precision=precision,
        input="float32 [N, 3, H, W]: (RGB / 255 - mean) / std",
        input_size=spec.input_size,
        any_size=any_size,
        mean=spec.mean,
        std=spec.std,
        mpp=spec.mpp,
        licence=spec.licence,
        opset=formats.OPSET if form == "onnx" else None,
        check=check,
        versions=_versions(),
    )
    if precision == "int8":
        say(f"calibrating int8 on {len(tiles)} tiles")
        rounded = draft / name_of(form, precision)
        loss = quantise(graph, rounded, form, encoder.network, spec, tiles)
        described = replace(described, calibration=loss)
        for name in (*names_of(form, "fp32"), f"{graph.name}.data"):
            (draft / name).unlink(missing_ok=True)
    return replace(described, files=_digests(draft))


def _digests(draft: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in sorted(draft.iterdir())}


def _versions() -> dict[str, str]:
    found = {"pathencoder": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
