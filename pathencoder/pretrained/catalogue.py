"""The named encoders: the bundled ones, and the public ones of catalogue.toml."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pathencoder.errors import ConfigError
from pathencoder.pretrained import folder
from pathencoder.spec import STAINS, EncoderSpec

DEFAULT = "pathencoder-tiny"
BUNDLED = Path(__file__).parents[1] / "weights"


def catalogue() -> Mapping[str, EncoderSpec]:
    """Every named encoder: the bundled ones, then the public ones in catalogue.toml's order."""
    return MappingProxyType({**_ours(), **_public()})


def find(name: str) -> str | None:
    """The encoder's name as the catalogue writes it, for a name in any case; None if unknown."""
    rows = catalogue()
    return (
        name
        if name in rows
        else next((own for own in rows if own.casefold() == name.casefold()), None)
    )


def list_encoders(
    pattern: str = "*",
    *,
    stain: str | None = None,
    commercial: bool | None = None,
    max_params: float | None = None,
) -> list[str]:
    """List the names of encoders.

    Args:
        pattern: A shell pattern such as "*phikon*"; case does not matter.
        stain: Only encoders that were trained on this stain, one of `spec.STAINS`.
        commercial: Only encoders that may (True) or may not (False) be used commercially.
        max_params: Only encoders of at most so many parameters.

    Returns:
        Names that `load_encoder` accepts, the bundled ones first.

    Raises:
        ConfigError: The stain is unknown, or the pattern is not text.
    """
    if stain is not None and stain not in STAINS:
        raise ConfigError(f"stain {stain!r} is not one of {', '.join(STAINS)}")
    if not isinstance(pattern, str):
        raise ConfigError(f"pattern={pattern!r}: a name, or a shell pattern such as '*phikon*'")
    return [
        name
        for name, spec in catalogue().items()
        if fnmatch.fnmatchcase(name.casefold(), pattern.casefold())
        and (stain is None or stain in spec.stains)
        and (commercial is None or spec.commercial == commercial)
        and (max_params is None or (spec.parameters or math.inf) <= max_params)
    ]


def nearest(name: str) -> str:
    """The most similar names as the end of a sentence ("; nearest: a, b"); "" without any."""
    names = list(catalogue())
    near = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), names, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def bundled() -> list[str]:
    """Names of the bundled encoders, the default first."""
    names = sorted(
        path.parent.name
        for path in BUNDLED.glob(f"*/{folder.CONFIG}")
        if "spec_version" in _section(path.parent)
    )
    return sorted(names, key=lambda name: name != DEFAULT)


def _section(path: Path) -> dict[str, object]:
    return dict(folder.read_config(path).get("pathencoder") or {})


@functools.cache
def _ours() -> dict[str, EncoderSpec]:
    return {name: folder.read_spec(BUNDLED / name) for name in bundled()}


@functools.cache
def _public() -> dict[str, EncoderSpec]:
    text = (Path(__file__).parent / "catalogue.toml").read_text(encoding="utf-8")
    return {name: EncoderSpec(name=name, **row) for name, row in tomllib.loads(text).items()}
