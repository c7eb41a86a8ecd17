"""`--shard` and `--retry-failed`: a part of the inputs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from pathencoder.cli.inputs import Found
from pathencoder.cli.report import read_failures
from pathencoder.cli.shard import Shard
from pathencoder.features.identity import place_of
from pathencoder.walk import printable


def of_shard(found: Found, shard: Shard | None) -> list[str]:
    """Keep the jobs of a shard, by a hash of the name of their output.

    The share of an input depends neither on the order of the inputs nor on how many there are, as
    long as it keeps its name.

    Args:
        found: The jobs; changed in place.
        shard: Which ones to keep; None: all.

    Returns:
        A note for the summary.
    """
    if shard is None:
        return []
    count = len(found.jobs)
    found.jobs = [
        job
        for job in found.jobs
        if _hash(job.name or str(job.source)) % shard.count == shard.number - 1
    ]
    return [f"shard {shard.number} of {shard.count}: {len(found.jobs):,} of {count:,} inputs"]


def only_failed(found: Found, out: Path) -> tuple[frozenset[str], list[str]]:
    """Keep the jobs that OUT/failures.csv lists.

    Args:
        found: The jobs; changed in place.
        out: The output folder.

    Returns:
        Names of slides of which only some tiles had failed: they are encoded again. And a note.

    Raises:
        click.UsageError: Nothing has failed, or none of it is among the inputs.
        StoreError: The list cannot be read.
    """
    rows = read_failures(out)
    if not rows:
        raise click.UsageError(f"--retry-failed: no input has failed in {printable(out)}")
    listed: dict[str, bool] = {}  # input -> whether all its rows are of parts
    for source, part in rows:
        listed[source] = listed.get(source, True) and bool(part)
    count = len(found.jobs)
    found.jobs = [job for job in found.jobs if _place(job.source) in listed]
    if not found.jobs:
        raise click.UsageError(
            f"--retry-failed: none of the {len(listed):,} inputs in the list of failures of"
            f" {printable(out)} is among the inputs"
        )
    again = frozenset(
        job.name for job in found.jobs if job.kind == "slide" and listed[_place(job.source)]
    )
    return again, [f"--retry-failed: {len(found.jobs):,} of {count:,} inputs"]


def _place(source: Path) -> str:
    return place_of(source)


def _hash(name: str) -> int:
    data = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
