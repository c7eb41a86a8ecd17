"""The ONNX file that lies beside an encoder's weights on the Hub: downloaded where it is used."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from pathencoder.errors import OfflineError, PathEncoderError
from pathencoder.pretrained import folder
from pathencoder.pretrained.hub import Repository
from pathencoder.pretrained.hub_errors import NoSuchFile
from pathencoder.spec import EncoderSpec

_RUNTIMES = ("onnxruntime", "openvino")  # either one runs it

log = logging.getLogger(__name__)


def is_runnable() -> bool:
    """Whether a library is installed that runs ONNX files."""
    return any(importlib.util.find_spec(name) is not None for name in _RUNTIMES)


def fetch(repository: Repository, spec: EncoderSpec) -> None:
    """Download a repository's ONNX file and its JSON, where they are of these weights.

    Without them the encoder runs in torch: a failure is logged, not raised.

    Args:
        repository: At the commit of the weights.
        spec: Of the encoder.
    """
    *parts, beside = folder.GRAPH
    try:
        described = folder.parse_config(repository.file(beside))
        if described.get("weights_sha256") != spec.sha256:
            log.warning(
                "%s: its %s is not used: %s says that it was exported from other weights",
                repository.repo,
                parts[0],
                beside,
            )
            return
        for name in _named(described, parts):
            repository.file(name)
    except (NoSuchFile, OfflineError):
        return
    except PathEncoderError as error:
        log.warning("%s runs in torch: its %s is not here. %s", repository.repo, parts[0], error)


def _named(described: dict[str, Any], parts: list[str]) -> list[str]:
    """The files that the JSON names, of those that an export can have."""
    files = described.get("files")
    return [name for name in parts if isinstance(files, dict) and name in files]
