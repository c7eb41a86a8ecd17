"""The file of an exported encoder and the JSON beside it, which says what it is.

| file | format | run by |
|---|---|---|
| model.onnx, model.int8.onnx | ONNX | `encode`, with onnx or openvino |
| model.xml, model.int8.xml, each with a .bin | OpenVINO's IR | `encode`, with openvino |
| model.pt2 | torch.export | torch |
| model.torchscript.pt | TorchScript | torch, DJL (QuPath) |
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import ChecksumError, ConfigError
from pathencoder.pretrained.folder import sha256_of

NAMES = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "torch-export": "model.pt2",
    "torchscript": "model.torchscript.pt",
}
FORMATS = tuple(NAMES)
INT8_FORMATS = ("onnx", "openvino")
AGAIN = "Export the encoder again: `pathencoder export`"
DYNAMIC = "dynamic"  # how the method of a calibration begins that finds ranges at run time
_ACCEPTABLE = 0.97  # mean centred cosine of int8, where a file does not say what is acceptable


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported encoder, as its JSON describes it.

    Attributes:
        encoder: Name of the encoder.
        weights_sha256: Of its weights, as in its spec.
        embedding: The readout that is in the file, as in its spec.
        dim: Length of the embedding.
        format: One of `FORMATS`.
        precision: "fp32" or "int8".
        input: What it takes, in words.
        input_size: Pixels of a side of the encoder's tiles.
        any_size: Whether it takes images of other sizes too.
        mean: Of the normalisation, which comes before it.
        std: Of the normalisation.
        mpp: Micrometres per pixel of the encoder's tiles.
        licence: Of the weights.
        opset: Of ONNX.
        files: sha256 of each file of the export.
        check: The comparison with torch before it was written.
        calibration: Of int8: on what, and the loss on tiles that were held out.
        versions: Of the packages that made it.
    """

    encoder: str
    weights_sha256: str
    embedding: str
    dim: int
    format: str
    precision: str
    input: str
    input_size: int
    any_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mpp: float | None
    licence: str
    opset: int | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    check: dict[str, Any] = dataclasses.field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def one_by_one(self) -> bool:
        """Whether the rows of images that are run together would depend on each other."""
        return str((self.calibration or {}).get("method", "")).startswith(DYNAMIC)

    @property
    def shortfall(self) -> str:
        """What int8 loses too much, in words; "" where the loss is acceptable."""
        if self.calibration is None:
            return ""
        mean = self.calibration["mean_centred_cosine"]
        least = self.calibration.get("acceptable_from", _ACCEPTABLE)
        if mean >= least:
            return ""
        return (
            f"its rows have a centred cosine of {mean:.3f} with those of fp32 on average, less than"
            f" {least}"
        )

    def as_json(self) -> str:
        """The content of the file beside the export."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def name_of(form: str, precision: str) -> str:
    """The name of the file of a format and precision."""
    stem, dot, suffix = NAMES[form].partition(".")
    return NAMES[form] if precision == "fp32" else f"{stem}.{precision}{dot}{suffix}"


def names_of(form: str, precision: str) -> list[str]:
    """All files of an export but its JSON; the one that is opened comes first."""
    name = name_of(form, precision)
    return [name, f"{name.removesuffix('.xml')}.bin"] if form == "openvino" else [name]


def description_of(file: Path) -> Path:
    """The JSON beside a file."""
    return file.with_name(f"{file.name}.json")


def read(file: Path) -> Exported:
    """What an exported file is; the file itself is compared with what its JSON says.

    Args:
        file: The file that is opened, such as model.onnx.

    Raises:
        ConfigError: It does not exist, or nothing beside it says what it is.
        ChecksumError: It is damaged, or another file than was exported.
    """
    beside = description_of(file)
    if not file.is_file():
        raise ConfigError(f"no file {file}. {AGAIN}")
    if not beside.is_file():
        raise ConfigError(
            f"{file}: nothing says which encoder it is of, since {beside.name} is not beside it."
            " encode runs files that `pathencoder export` wrote: copy both, or export again"
        )
    found = _parsed(beside)
    for name, expected in found.files.items():
        part = file.with_name(name)
        state = part.stat() if part.is_file() else None
        if state is None or _sha256(part, state.st_size, state.st_mtime_ns) != expected:
            raise ChecksumError(
                f"{part} is damaged, or not the file that {beside.name} describes: its sha256 is"
                f" another. {AGAIN}, or fetch it again where it came from the Hub"
                " (force_download=True)"
            )
    return found


def _parsed(beside: Path) -> Exported:
    try:
        content: Mapping[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Exported)}
        given = {key: value for key, value in content.items() if key in known}
        given |= {name: tuple(given[name]) for name in ("mean", "std")}
        found = Exported(**given)
        if file_name(beside) not in found.files:
            raise KeyError("files")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{beside} does not describe an exported encoder ({error}). {AGAIN}"
        ) from error
    return found


def file_name(beside: Path) -> str:
    """The name of the file that a JSON describes."""
    return beside.name.removesuffix(".json")


@functools.lru_cache(maxsize=64)
def _sha256(file: Path, size: int, changed: int) -> str:
    """The sha256 of a file with that size and time of change."""
    return sha256_of(file)
