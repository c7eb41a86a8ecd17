"""Which runtime computes the rows of `encode`, and at which precision."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.network import has_tokens
from pathencoder.pretrained.origin import Origin
from pathencoder.runtime import check_runtime, precision_used
from pathencoder.runtimes import exported
from pathencoder.runtimes.engine import Engine, Graph
from pathencoder.runtimes.engines import ENGINES, engine, engines_for
from pathencoder.runtimes.exported import NAMES, Exported, name_of
from pathencoder.runtimes.unchanged import change_of, weights_sha256
from pathencoder.spec import EncoderSpec
from pathencoder.stream import Settings

log = logging.getLogger(__name__)

_EXPORT = "`pathencoder export` writes one"


@dataclass(frozen=True)
class Choice:
    """What computes the rows.

    Attributes:
        runtime: "torch", "onnx" or "openvino".
        precision: "fp32", "bf16", "fp16" or "int8" ("fp64" for weights in float64).
        graph_sha256: Of the exported file, where its rows are not those of the weights (int8).
        graph: Maps normalised images to embeddings; None: the network itself does, in torch.
        one_by_one: Whether the graph is to be run on one image at a time.
    """

    runtime: str
    precision: str
    graph_sha256: str | None = None
    graph: Graph | None = None
    one_by_one: bool = False

    def readout(self, x: Tensor) -> Tensor:
        """Run the graph on normalised float32 [N, 3, H, W] on the CPU."""
        assert self.graph is not None
        return torch.from_numpy(self.graph(x.contiguous().numpy()))


@dataclass(frozen=True)
class _Asked:
    """An encoder, and what of it is to be computed."""

    network: nn.Module
    spec: EncoderSpec
    origin: Origin | None
    precision: str
    output: str

    @property
    def folder(self) -> Path | None:
        """Where exported files may lie beside the weights."""
        return self.origin.folder if self.origin is not None and self.origin.exports else None

    def hindrance(self) -> str:
        """Why no exported file can compute it, as the end of a sentence; "" where one can."""
        first = next(self.network.parameters())
        if first.device.type != "cpu":
            return f"the encoder is on {first.device}, and exported files run on the CPU"
        if first.dtype != torch.float32:
            return f"the weights are {first.dtype}, and exported files hold float32"
        if self.precision not in ("auto", "fp32", "int8"):
            return f"exported files are of fp32 or int8, not {self.precision}"
        if self.output != "embedding":
            return f"exported files compute the embedding, not output={self.output!r}"
        if change := change_of(self.network, self.origin):
            return f"it is not the encoder that was exported: {change}"
        return ""


def choose(
    network: nn.Module, spec: EncoderSpec, origin: Origin | None, settings: Settings
) -> Choice:
    """Choose the runtime.

    Args:
        network: Of the encoder.
        spec: Its description.
        origin: What it was loaded from.
        settings: How it is read and run.

    Returns:
        The choice. "auto" takes, of those that compute the same rows to about 1e-6, the fastest
        that is installed, and torch where the encoder has no exported file.

    Raises:
        ConfigError: A setting is unknown, or the runtime cannot compute this.
        ChecksumError: The exported file is damaged.
        MissingExtra: The runtime is not installed.
    """
    wanted = check_runtime(settings.runtime)
    asked = _Asked(network, spec, origin, settings.precision, settings.output)
    if wanted == "torch":
        return _torch(asked)
    if wanted != "auto":
        return _required(asked, wanted)
    if settings.precision == "int8":
        return _int8(asked)
    return _fastest(asked) or _torch(asked)


def _torch(asked: _Asked) -> Choice:
    dtype = next(asked.network.parameters()).dtype
    return Choice("torch", precision_used(asked.precision, dtype))


def _fastest(asked: _Asked) -> Choice | None:
    """The first runtime that is installed and has a file for this; None: torch."""
    folder = asked.folder
    if folder is None or asked.precision not in ("auto", "fp32"):
        return None
    for one in ENGINES:
        file = _file_for(one, folder, "fp32")
        if file is None or not one.is_installed or asked.hindrance():
            continue
        try:
            return _opened(asked, one, file)
        except PathEncoderError as error:
            _warn_once(f"{asked.spec.name} runs in torch: {error}")
    return None


def _int8(asked: _Asked) -> Choice:
    """The fastest runtime that is installed and has a file of int8 with an acceptable loss."""
    folder = asked.folder
    here = [] if folder is None else _files_in(asked, folder, "int8")
    if not here:
        raise ConfigError(
            f"precision='int8': {asked.spec.name} has no file of int8 beside its weights. Name one"
            " with runtime=FOLDER (--runtime FOLDER); `pathencoder export --precision int8` writes"
            " it"
        )
    good = [(one, file) for one, file in here if not exported.read(file).shortfall]
    if not good:
        file = here[0][1]
        raise ConfigError(
            f"precision='int8': {file} is not used: {exported.read(file).shortfall}. Use fp32, or"
            " calibrate on more tiles; runtime=FILE (--runtime FILE) uses it all the same"
        )
    return _opened(asked, *_first_installed(good))


def _required(asked: _Asked, wanted: str | Path) -> Choice:
    """The runtime, file or folder that was asked for, or an error."""
    precision = "int8" if asked.precision == "int8" else "fp32"
    if isinstance(wanted, Path):
        one, file = _named(asked, wanted)
    else:
        one = engine(wanted)
        folder = asked.folder
        found = None if folder is None else _file_for(one, folder, precision)
        if found is None:
            raise ConfigError(
                f"runtime={wanted!r}: {asked.spec.name} has no exported file"
                f" ({name_of(_form(one), precision)}) beside its weights. {_EXPORT}; then name its"
                " folder with runtime=FOLDER (--runtime FOLDER)"
            )
        file = found
    if hindrance := asked.hindrance():
        raise ConfigError(
            f"runtime={str(wanted)!r} cannot compute this: {hindrance}. runtime='torch' can"
        )
    return _opened(asked, one, file)


def _form(one: Engine) -> str:
    return next(form for form, name in NAMES.items() if Path(name).suffix == one.suffixes[0])


def _file_for(one: Engine, folder: Path, precision: str) -> Path | None:
    """The file in a folder that a runtime would run."""
    forms = [form for form, name in NAMES.items() if Path(name).suffix in one.suffixes]
    forms.sort(key=lambda form: one.suffixes.index(Path(NAMES[form]).suffix))
    files = [folder / name_of(form, precision) for form in forms]
    return next((file for file in files if file.is_file()), None)


def _files_in(asked: _Asked, folder: Path, precision: str) -> list[tuple[Engine, Path]]:
    """The runtimes with a file in a folder, the fastest first."""
    # of int8, OpenVINO's is the faster one for transformers, ONNX Runtime's for CNNs
    turned = precision == "int8" and has_tokens(asked.network)
    found = [(one, _file_for(one, folder, precision)) for one in ENGINES[:: -1 if turned else 1]]
    here = [(one, file) for one, file in found if file is not None]
    # a file of a runtime's own format before one that it can read too
    return sorted(here, key=lambda pair: pair[0].suffixes.index(pair[1].suffix))


def _first_installed(found: Sequence[tuple[Engine, Path]]) -> tuple[Engine, Path]:
    """The first runtime that is installed; else the first, which says what is to be installed."""
    return next(((one, file) for one, file in found if one.is_installed), found[0])


def _named(asked: _Asked, place: Path) -> tuple[Engine, Path]:
    """The runtime of a file, or of the files in a folder, that the user named."""
    if place.is_file():
        engines = engines_for(place.suffix)
        if not engines:
            raise ConfigError(
                f"runtime={str(place)!r}: encode runs files of ONNX (.onnx) and OpenVINO (.xml)"
            )
        return _first_installed([(one, place) for one in engines])
    wanted, other = ("int8", "fp32") if asked.precision == "int8" else ("fp32", "int8")
    here = _files_in(asked, place, wanted)
    if not here:
        advice = _EXPORT
        if _files_in(asked, place, other):
            advice = f"It has one of {other}: ask for precision={other!r} (--precision {other})"
        raise ConfigError(
            f"runtime={str(place)!r}: no file of {wanted} there that encode runs"
            f" ({name_of('onnx', wanted)}, {name_of('openvino', wanted)}). {advice}"
        )
    good = [(one, file) for one, file in here if not exported.read(file).shortfall]
    return _first_installed(good or here)


def _opened(asked: _Asked, one: Engine, file: Path) -> Choice:
    """Open a file, after it was checked that it is of this encoder."""
    found = exported.read(file)
    _check_same(asked, found, file)
    if asked.precision not in ("auto", found.precision):
        raise ConfigError(
            f"precision={asked.precision!r}, but {file} computes in {found.precision}: leave the"
            " precision out, or name another file"
        )
    graph = one.open(file, torch.get_num_threads())
    rounded = found.files[file.name] if found.precision != "fp32" else None
    if found.shortfall:
        _warn_once(f"{file}: {found.shortfall}. Compare what you do with it with fp32")
    return Choice(one.name, found.precision, rounded, graph, found.one_by_one)


def _check_same(asked: _Asked, found: Exported, file: Path) -> None:
    """Raise the ConfigError of a file of another encoder or readout."""
    own = weights_sha256(asked.spec, asked.origin)
    if found.weights_sha256 != own:
        raise ConfigError(
            f"{file} was exported from other weights ({found.encoder}, sha256"
            f" {found.weights_sha256[:12]}) than those of {asked.spec.name} (sha256"
            f" {str(own)[:12]}). {exported.AGAIN}"
        )
    if found.embedding != asked.spec.embedding or found.dim != asked.spec.dim:
        raise ConfigError(
            f"{file} computes another embedding ({found.embedding}) than {asked.spec.name} does"
            f" ({asked.spec.embedding}). {exported.AGAIN}"
        )
    size = asked.spec.input_size
    if not found.any_size and found.input_size != size:
        raise ConfigError(
            f"{file} takes images of {found.input_size} px, and {asked.spec.name} makes them of"
            f" {size} px. {exported.AGAIN}"
        )


@functools.cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)
