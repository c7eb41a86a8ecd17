"""A share of the inputs, as `--shard 3/16` gives it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the inputs; `number` counts from 1."""

    number: int
    count: int


def as_shard(_: click.Context, __: click.Parameter, value: str | None) -> Shard | None:
    """A callback of click for I/N."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    number, count = (int(v) for v in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise click.BadParameter("two numbers as in 3/16, the first from 1 to the second")
    return Shard(number, count)
