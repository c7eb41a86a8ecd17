"""An encoder's folder: the files that `load_encoder` reads, here or on the Hub; atomic writes.

| file | content |
|---|---|
| config.json | timm's hub format and a `pathencoder` section (pathencoder/spec.py) |
| model.safetensors | weights under timm's key names |
| reference.safetensors | `tile` uint8 [H, W, 3], `embedding` float32 [D] for `verify` |
| README.md | model card |
| LICENSE | licence of the weights |
| metrics.json | the card's metrics with their provenance |
| model.onnx, model.onnx.json | the network for ONNX Runtime, which `pathencoder export` wrote |
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pathencoder._version import __version__
from pathencoder.errors import ConfigError, StoreError
from pathencoder.spec import EncoderSpec
from pathencoder.walk import expanded

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REFERENCE = "reference.safetensors"
CARD = "README.md"
LICENCE = "LICENSE"
METRICS = "metrics.json"
GRAPH = ("model.onnx", "model.onnx.data", "model.onnx.json")  # .data: of large networks
# config.json last: until then the old one, with the old sha256, does not match new weights
FILES = (REFERENCE, METRICS, CARD, LICENCE, *GRAPH, WEIGHTS, CONFIG)


@dataclass(frozen=True)
class Reference:
    """A real tile and its embedding when the encoder was published.

    Attributes:
        tile: uint8 RGB [H, W, 3].
        embedding: float32 [D].
    """

    tile: npt.NDArray[np.uint8]
    embedding: npt.NDArray[np.float32]


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The parsed config.json of a folder.

    Raises:
        ConfigError: The file is missing, or not a JSON object.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no {CONFIG}: an encoder folder has {CONFIG} and {WEIGHTS}"
            " (encoder.save_pretrained writes one)"
        )
    return parse_config(path)


def parse_config(path: Path, remedy: str = "fetch or export the encoder again") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: Of the file.
        remedy: What helps where it is damaged.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error}): {remedy}") from error
    if not isinstance(config, dict):
        raise ConfigError(
            f"{path} holds {type(config).__name__} instead of a JSON object: {remedy}"
        )
    return config


def read_spec(folder: str | os.PathLike[str]) -> EncoderSpec:
    """The spec of a folder that `write_folder` wrote.

    Raises:
        ConfigError: The folder has no such config.json.
    """
    return EncoderSpec.from_config(read_config(folder))


def read_reference(folder: str | os.PathLike[str]) -> Reference | None:
    """The folder's reference tile and embedding; None without one.

    Raises:
        ConfigError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(folder) / REFERENCE
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        return Reference(tile=arrays["tile"], embedding=arrays["embedding"])
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): fetch or export the encoder again"
        ) from error


def write_folder(
    folder: str | os.PathLike[str],
    spec: EncoderSpec,
    state_dict: Mapping[str, Tensor],
    *,
    reference_tile: npt.NDArray[np.uint8] | None = None,
    reference_embedding: npt.NDArray[np.float32] | None = None,
    card: str | None = None,
    licence: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> EncoderSpec:
    """Write an encoder folder.

    An existing folder keeps its other files; the files of the encoder that it holds are replaced,
    and those that are not given are removed.

    Args:
        folder: Created if it does not exist.
        spec: The encoder's description.
        state_dict: Tensors under timm's key names, saved in their dtype.
        reference_tile: uint8 RGB [H, W, 3].
        reference_embedding: [D], the embedding of the tile.
        card: The model card, Markdown.
        licence: The licence, plain text.
        metrics: The content of metrics.json.

    Returns:
        The spec as it was written, with the sha256 of the weights file.

    Raises:
        ConfigError: Only one of `reference_tile` and `reference_embedding` is given.
        StoreError: The folder cannot be written, or files of these names in it are of no encoder.
    """
    from pathencoder.pretrained import timm_form, weight_files

    if (reference_tile is None) != (reference_embedding is None):
        raise ConfigError("a reference needs both: reference_tile and reference_embedding")
    target = expanded(folder)
    refuse_foreign(target, FILES, "an encoder", ours=is_encoder(target))
    try:
        with draft_of(target) as draft:
            weight_files.save(state_dict, draft / WEIGHTS)
            published = dataclasses.replace(
                timm_form.callable_by_timm(spec),
                sha256=sha256_of(draft / WEIGHTS),
                layout=spec.timm_layout,
                files=(WEIGHTS,),
            )
            _write_json(draft / CONFIG, _with_versions(published.to_config()))
            if reference_tile is not None and reference_embedding is not None:
                _save_reference(draft / REFERENCE, reference_tile, reference_embedding)
            if metrics is not None:
                _write_json(draft / METRICS, metrics)
            for name, text in ((CARD, card), (LICENCE, licence)):
                if text is not None:
                    (draft / name).write_text(text, encoding="utf-8")
            publish(draft, target, FILES)
    except OSError as error:
        raise StoreError(
            f"cannot write the encoder folder {target}: {error}. Free space there, or choose"
            " another folder"
        ) from error
    return published


def copy_folder(source: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Copy an encoder's folder byte by byte.

    An existing folder keeps its other files; the files of the encoder that it holds are replaced,
    and those that the source lacks are removed.

    Raises:
        StoreError: As for `write_folder`.
    """
    origin, target = Path(source), expanded(folder)
    if target.exists() and target.resolve() == origin.resolve():
        return
    refuse_foreign(target, FILES, "an encoder", ours=is_encoder(target))
    try:
        with draft_of(target) as draft:
            for name in FILES:
                if (origin / name).is_file():
                    shutil.copyfile(origin / name, draft / name)
            publish(draft, target, FILES)
    except OSError as error:
        raise StoreError(
            f"cannot write the encoder folder {target}: {error}. Free space there, or choose"
            " another folder"
        ) from error


def refuse_foreign(target: Path, names: Sequence[str], what: str, *, ours: bool) -> None:
    """Refuse to replace or remove files that this package has not written.

    Args:
        target: The folder that is to be written.
        names: The files that would be replaced, or removed.
        what: What the folder should hold, such as "an encoder".
        ours: Whether it does.

    Raises:
        StoreError: It holds some of these files, and they are of something else.
    """
    there = [name for name in names if (target / name).exists()]
    if there and not ours:
        raise StoreError(
            f"{target} does not hold {what}, and its {', '.join(there)} would be replaced or"
            " removed: choose another folder, or move these files"
        )


def is_encoder(folder: Path) -> bool:
    """Whether this package has written the encoder of a folder."""
    try:
        return "pathencoder" in read_config(folder)
    except ConfigError:
        return False


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, for an atomic rename; always removed afterwards."""
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    draft = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.incomplete")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, target: Path, names: Sequence[str]) -> None:
    """Put a draft in place; in an existing folder the files of these names, in this order.

    Args:
        draft: The new folder.
        target: Its final place. Files of other names are kept.
        names: The files that are replaced, or removed where the draft lacks them.
    """
    for file in draft.iterdir():
        _fsync(file)
    if not target.exists():
        draft.rename(target)
        return
    for name in names:
        if (draft / name).exists():
            (draft / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _save_reference(
    path: Path, tile: npt.NDArray[np.uint8], embedding: npt.NDArray[np.float32]
) -> None:
    import torch

    from pathencoder.pretrained import weight_files

    if tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] != 3:
        raise ConfigError(
            f"a reference tile is uint8 [H, W, 3], found {tile.dtype} {list(tile.shape)}"
        )
    vector = np.asarray(embedding, dtype=np.float32).reshape(-1)
    weight_files.save({"tile": torch.tensor(tile), "embedding": torch.tensor(vector)}, path)


def _with_versions(config: dict[str, Any]) -> dict[str, Any]:
    others = {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    return {
        **config,
        "pathencoder": {
            **config["pathencoder"],
            "versions": {"pathencoder": __version__, **others},
        },
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
