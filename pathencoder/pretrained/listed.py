"""Public encoders that are listed with their terms but not loaded: other code, other formats."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.spec import STAINS

KINDS = ("tile", "slide")


@dataclass(frozen=True, kw_only=True)
class ListedEncoder:
    """A public encoder that pathencoder does not load.

    Attributes:
        name: Its name in `pathencoder list`.
        kind: "tile": tiles to vectors; "slide": the vectors of a slide's tiles to one vector.
        title: Its published name and network.
        dim: Length of its vector; None: not known to us.
        tiles: For a slide encoder, the tile encoder whose vectors it takes.
        parameters: Their number; None: not known to us.
        stains: The stains that it was trained on; empty: not known to us.
        licence: Of its weights.
        commercial: Whether it may be used commercially; False also where this is not known.
        gate: The terms that must be accepted before a download; "" for none.
        place: Its repository on the Hub, or its page.
        needs: What it needs to be used, in a few words.
        reference: Paper or page.
        note: What is uncertain.
    """

    name: str
    kind: str
    title: str
    licence: str
    place: str
    needs: str
    dim: int | None = None
    tiles: str = ""
    parameters: int | None = None
    stains: tuple[str, ...] = ()
    commercial: bool = False
    gate: str = ""
    reference: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stains", tuple(self.stains))  # TOML has lists only
        if self.kind not in KINDS or not set(self.stains) <= set(STAINS):
            raise ConfigError(
                f"listed encoder {self.name!r}: kind {self.kind!r} is one of {KINDS}, stains"
                f" {self.stains} are among {STAINS}"
            )
        if bool(self.tiles) != (self.kind == "slide"):
            raise ConfigError(f"listed encoder {self.name!r}: `tiles` is for slide encoders")

    @property
    def why_not(self) -> str:
        """One sentence: that it is not loaded, and what it needs."""
        takes = f" It takes the tile vectors of {self.tiles}." if self.tiles else ""
        return (
            f"{self.name} ({self.title}) is known, but pathencoder does not load it: it needs"
            f" {self.needs}. {self.place}; licence: {self.licence}.{takes}"
        )


@functools.cache
def listed() -> Mapping[str, ListedEncoder]:
    """Every encoder of listed.toml by its name, in its order."""
    text = (Path(__file__).parent / "listed.toml").read_text(encoding="utf-8")
    return {name: ListedEncoder(name=name, **row) for name, row in tomllib.loads(text).items()}


def find(name: str) -> ListedEncoder | None:
    """The encoder of that name, in any case; None if it is not listed."""
    return next((one for own, one in listed().items() if own == name.casefold()), None)
