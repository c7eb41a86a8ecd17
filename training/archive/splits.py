"""The split of a patient: a hash decides, so it is the same in every run and for every source."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from pathencoder.errors import ConfigError
from training.data.values import split_of

SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}
_SALT = "pathencoder split 1"


def parse_shares(text: str) -> dict[str, float]:
    """Shares as the command line writes them: "train=0.9,val=0.05,test=0.05".

    Raises:
        ConfigError: A name is no split, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            shares[split_of(name.strip()).name] = float(number)
        except ValueError:
            raise ConfigError(
                f"--split {text}: {part!r} is not a split and its share, such as train=0.9"
            ) from None
    if "" in shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1):
        raise ConfigError(f"--split {text}: shares from 0 to 1 that add up to 1 are needed")
    return shares


def check_shares(
    asked: Mapping[str, float] | None, before: Mapping[str, float]
) -> dict[str, float]:
    """The shares to use: as before where none are asked for.

    Raises:
        ConfigError: Others are asked for than before: patients would change their split.
    """
    if asked and before and dict(asked) != dict(before):
        had = ",".join(f"{name}={share:g}" for name, share in before.items())
        raise ConfigError(
            f"this manifest was made with --split {had}, and patients keep their split. Leave"
            " --split out, or make a new manifest"
        )
    return dict(asked or before or SHARES)


def split_by_hash(patient: str, shares: Mapping[str, float]) -> str:
    """The split of a patient.

    Args:
        patient: Its code, or a slide's name where there is none.
        shares: Split -> share; they add up to 1.
    """
    digest = hashlib.sha256(f"{_SALT}\0{patient}".encode()).digest()
    place, reached = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in shares.items():
        reached += share
        if place < reached:
            return name
    return list(shares)[-1]
