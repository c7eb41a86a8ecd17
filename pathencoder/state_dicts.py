"""Compare the keys and shapes of weights with those that a network expects; digest weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 of the names, shapes, dtypes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state dict; () for other values."""
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}


@dataclass(frozen=True)
class Differences:
    """How weights differ from what a network expects; false where they fit.

    Attributes:
        found: Shape of every tensor of the weights, by key.
        expected: Shape of every tensor of the network, by key.
    """

    found: Shapes
    expected: Shapes

    @property
    def missing(self) -> list[str]:
        """Keys of the network that the weights lack."""
        return [key for key in self.expected if key not in self.found]

    @property
    def unused(self) -> list[str]:
        """Keys of the weights that the network does not have."""
        return [key for key in self.found if key not in self.expected]

    @property
    def misshapen(self) -> list[str]:
        """Keys of both whose shapes differ."""
        return [
            key
            for key, shape in self.expected.items()
            if key in self.found and self.found[key] != shape
        ]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unused or self.misshapen)

    def __str__(self) -> str:
        """Counts and examples: "2 keys missing (a [3], b [4]); 1 key of another shape (...)"."""
        parts = (
            _listed(self.missing, "missing", lambda key: _named(key, self.expected)),
            _listed(self.unused, "not used by the network", lambda key: _named(key, self.found)),
            _listed(
                self.misshapen,
                "of another shape",
                lambda key: f"{_named(key, self.found)} instead of {list(self.expected[key])}",
            ),
        )
        return "; ".join(part for part in parts if part)


def _named(key: str, shapes: Shapes) -> str:
    return f"{key} {list(shapes[key])}" if shapes[key] else key


def _listed(keys: list[str], what: str, show: Callable[[str], str]) -> str:
    if not keys:
        return ""
    examples = ", ".join(show(key) for key in keys[:3])
    more = ", ..." if len(keys) > 3 else ""
    return f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} {what} ({examples}{more})"


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
