"""Weight files -> tensors: safetensors, or a pickle read as tensors only.

Nothing in a file is ever run.
"""

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

_log = logging.getLogger(__name__)

# Where checkpoints keep the weights that are meant for use, in the order in which they are looked
# for.
_WRAPPERS = ("teacher", "state_dict", "model_state_dict", "model")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .bin, .pt or .pth file by their published names, on the CPU.

    safetensors and zipped pickles are memory-mapped. Raises UnsafeWeights for a pickle that holds
    more than tensors and plain containers, IncompatibleWeights for a file that is damaged or holds
    no tensors.
    """
    if path.suffix != ".safetensors":
        return _unwrap(_read_pickle(path), path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise IncompatibleWeights(
            f"{path} is not a whole safetensors file ({error}): delete it and fetch it again"
        ) from error
    return tensors


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, readable by whom any new file is readable (the library's own files are private)."""
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in state.items()},
        path,
        metadata={"format": "pt"},
    )
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def keep(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a converted checkpoint for the next time, whole or not at all.

    A cache that cannot be written is no error.
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
            # what it cannot read it refuses all the same
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise UnsafeWeights(
            f"{path} holds more than tensors, or is no checkpoint at all, and reading it further"
            " could run code of its author's choice. It was not read. Ask the publisher for"
            " safetensors, or convert it yourself where you trust it"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise IncompatibleWeights(
            f"{path} cannot be read as a checkpoint ({_first_line(error)}): delete it and fetch it"
            " again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The innermost dict of tensors.

    Checkpoints wrap it as {'teacher': ...}, {'state_dict': ...} or {'model': ...}.
    """
    while isinstance(content, Mapping):
        if content and all(isinstance(v, Tensor) for v in content.values()):
            return dict(content)
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
    raise IncompatibleWeights(
        f"{path} holds no dict of tensors where checkpoints have it: {', '.join(_WRAPPERS)} or the"
        " top level"
    )
