"""Read and write weight files: safetensors, and pickles as tensors only; no code is run."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pathencoder.errors import IncompatibleWeights, UnsafeWeights
from pathencoder.files import give_usual_permissions

_log = logging.getLogger(__name__)

# Keys under which checkpoints hold the weights for inference, in order of preference.
_WRAPPERS = ("teacher", "state_dict", "model_state_dict", "model")


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file on the CPU; safetensors and zipped pickles are mapped.

    Args:
        path: A .safetensors, .bin, .pt or .pth file.

    Returns:
        Tensors by their published names.

    Raises:
        UnsafeWeights: A pickle holds more than tensors and plain containers.
        IncompatibleWeights: The file is damaged or holds no tensors.
    """
    if path.suffix != ".safetensors":
        return _unwrap(_read_pickle(path), path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise IncompatibleWeights(
            f"{path} is not a complete safetensors file ({error}): delete it and fetch it again"
        ) from error
    return tensors


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors with the usual permissions (the library makes private files)."""
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in state.items()},
        path,
        metadata={"format": "pt"},
    )
    give_usual_permissions(path)


def keep(state: Mapping[str, Tensor], path: Path) -> None:
    """Save a converted checkpoint in the cache, atomically; a cache that is read-only is no error.

    Args:
        state: Tensors by name.
        path: The safetensors file to write.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".incomplete")
        os.close(handle)
        temporary = Path(name)
        save(state, temporary)
        temporary.replace(path)
    except OSError as error:
        _log.info(
            "the converted weights are not kept, %s: they are converted again at the next load",
            error,
        )
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # what it cannot read raises an error in any case
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise UnsafeWeights(
            f"{path} holds more than tensors, or is not a checkpoint, and reading it could run"
            " arbitrary code. It was not read. Ask the publisher for safetensors, or convert it"
            " yourself if you trust it"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise IncompatibleWeights(
            f"{path} cannot be read as a checkpoint ({_first_line(error)}): delete it and fetch it"
            " again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The innermost dict of tensors, inside {'teacher': ...}, {'state_dict': ...} and the like."""
    while isinstance(content, Mapping):
        if content and all(isinstance(v, Tensor) for v in content.values()):
            return dict(content)
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
    raise IncompatibleWeights(
        f"{path} holds no dict of tensors at its top level or under {', '.join(_WRAPPERS)}: give a"
        " file of weights"
    )
