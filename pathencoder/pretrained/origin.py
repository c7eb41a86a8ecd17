"""The source of an encoder's weights, and whether they were changed since."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import wrapped
from pathencoder.errors import PathEncoderError
from pathencoder.pretrained import keys, weight_files
from pathencoder.pretrained.folder import CONFIG, read_config, sha256_of
from pathencoder.spec import EncoderSpec


@dataclass(frozen=True)
class Origin:
    """What an encoder was loaded from.

    Attributes:
        spec: The spec when it was loaded.
        weights: The file that was read.
        folder: The folder with its other files; None without one.
        structure: `structure_of` the network when it was loaded.
        exports: Whether files in the folder that were exported for another runtime may be run.
    """

    spec: EncoderSpec
    weights: Path
    folder: Path | None
    structure: str
    exports: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether `save_pretrained` wrote the folder, so that it can be copied unchanged."""
        return (
            self.folder is not None
            and (self.folder / CONFIG).is_file()
            and "pathencoder" in read_config(self.folder)
        )


def structure_of(network: nn.Module) -> str:
    """Hex sha256 of the modules of a network and their settings, as torch prints them."""
    return hashlib.sha256(repr(network).encode()).hexdigest()


def label(spec: EncoderSpec) -> str:
    """An encoder's name with its repository, revision and sha256, where they are known."""
    facts = (
        spec.repo,
        f"revision {spec.revision}" if spec.revision else None,
        f"sha256 {spec.sha256}" if spec.sha256 else None,
    )
    known = ", ".join(f for f in facts if f and f != spec.name)
    return f"{spec.name} ({known})" if known else spec.name


def differences(
    network: nn.Module, spec: EncoderSpec, origin: Origin | None, state: Mapping[str, Tensor]
) -> list[str]:
    """Describe what was changed since the encoder was loaded.

    Args:
        network: The encoder's network, wrapped or not.
        spec: Its present spec.
        origin: What it was loaded from; None for one that was built here.
        state: Its tensors under timm's key names. They are compared by value with the file that
            they were loaded from, whatever the dtypes.

    Returns:
        The changes as text; empty for an unchanged encoder.
    """
    if origin is None:
        return ["its weights were set by hand"] if spec.sha256 else []
    then, now = (dataclasses.asdict(s) for s in (origin.spec, spec))
    fields = [name for name in now if now[name] != then[name]]
    weights = _weights(origin, state, wrapped.bare(network))
    # wrappers are modules of their own, and compute the same
    same = wrapped.is_wrapped(network) or structure_of(network) == origin.structure
    return [
        *([weights] if weights else []),
        *([] if same else ["modules of its network were replaced"]),
        *([f"its description was changed ({', '.join(fields)})"] if fields else []),
    ]


def rounded_to(changes: str) -> str | None:
    """The dtype of weights that were only rounded; None where something else was changed.

    Args:
        changes: As `differences` returns them, joined with "; ".
    """
    rounded = re.fullmatch(r"its weights were rounded to (\w+)", changes)
    return rounded[1] if rounded else None


def _weights(origin: Origin, state: Mapping[str, Tensor], network: Any) -> str | None:
    """How the weights were changed, as text; None where every value is that of the file."""
    published = _published(origin, network)
    if published is None:
        return (
            "its weights could not be compared with those that were loaded, whose file was removed"
            " or replaced"
        )
    if set(published) != set(state):
        return "its network was changed"
    unequal = [name for name, tensor in state.items() if not _same(tensor, published[name])]
    if not unequal:
        return None
    if all(_rounded(state[name], published[name]) for name in unequal):
        kinds = sorted({str(state[name].dtype).removeprefix("torch.") for name in unequal})
        return f"its weights were rounded to {' and '.join(kinds)}"
    return f"its weights were changed ({len(unequal)} of {len(state)} tensors)"


def _published(origin: Origin, network: Any) -> keys.State | None:
    """The tensors of the file under timm's names; None where the file was removed or replaced."""
    try:
        if origin.is_ours and origin.spec.sha256 not in (None, sha256_of(origin.weights)):
            return None
        state = keys.to_timm(weight_files.read(origin.weights), origin.spec)
    except (OSError, PathEncoderError):
        return None
    return keys.without_classifier(state, network)


def _same(here: Tensor, there: Tensor) -> bool:
    if here.dtype == there.dtype:
        return torch.equal(here.detach().cpu(), there)
    return here.shape == there.shape and torch.equal(here.detach().cpu().double(), there.double())


def _rounded(here: Tensor, there: Tensor) -> bool:
    """Whether the values are those of the file, rounded to their dtype."""
    return here.shape == there.shape and torch.equal(here.detach().cpu(), there.to(here.dtype))
