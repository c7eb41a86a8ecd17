"""The settings of one job of `encode`: those of the command, of its row and of its files."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from pathencoder.cli.beside import Beside
from pathencoder.cli.job import Job
from pathencoder.cli.mpp_table import Row, with_row
from pathencoder.features.provenance import Settings


def settings_of(
    settings: Settings, job: Job, row: Row | None, beside: Beside, again: AbstractSet[str]
) -> Settings:
    """The settings of a job.

    Args:
        settings: Of the command.
        job: The job.
        row: Its row of --slides-csv.
        beside: Files of areas and coordinates of slides.
        again: Names of jobs that are done again although they were done.

    Raises:
        ConfigError: They contradict each other.
    """
    given = replace(
        settings,
        tissue=beside.tissue.get(job.name),
        coords=beside.coords.get(job.name),
        overwrite=settings.overwrite or job.name in again,
    )
    return with_row(given, row)
