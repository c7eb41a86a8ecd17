"""What one `pathencoder encode` command is asked to do, after its command line was parsed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.cli import report
from pathencoder.cli.beside import Beside
from pathencoder.cli.inputs import Found
from pathencoder.cli.jobs import RESUMES, RETRIES, STARTS_AGAIN, Ended, conclude
from pathencoder.cli.mpp_table import Scales
from pathencoder.cli.ray_options import RayOptions
from pathencoder.features.provenance import Settings
from pathencoder.remote.staging import Scratch


@dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """The inputs of one command, and what is the same for all of them.

    Attributes:
        found: The jobs, and what was left out.
        scales: The settings of single jobs, where a table gives them.
        settings: The same for all.
        out: The output folder; it exists, except in a dry run.
        beside: Files of areas and coordinates of slides.
        again: Names of jobs that are encoded again although they were done.
        notes: For the summary.
        pictures: Also draw every slide's tissue and tiles.
        save_tissue: Also write every slide's tissue.
        only_tissue: Write the tissue and the tiles of slides, and encode nothing.
        scratch: Where copies of remote slides lie.
        ray: The cluster to work on; None: this process.
        as_json: Print JSON instead of text.
        debug: Print tracebacks.
    """

    found: Found
    scales: Scales
    settings: Settings
    out: Path
    beside: Beside
    again: AbstractSet[str]
    notes: Sequence[str]
    pictures: bool
    save_tissue: bool
    only_tissue: bool
    scratch: Scratch
    ray: RayOptions | None
    as_json: bool
    debug: bool

    @property
    def go_on(self) -> str:
        """How to go on after a stop."""
        if self.settings.overwrite:
            return STARTS_AGAIN
        return RETRIES if self.again else RESUMES

    def conclude(
        self, ended: Ended, about: report.About, as_text: Callable[[Path | None], str]
    ) -> int:
        """End the command with its summary, as text or JSON; see `jobs.conclude`."""

        def data(failures: Path | None) -> dict[str, Any]:
            return report.as_json(ended.outcomes, about, failures=failures, status=ended.status)

        return conclude(
            ended,
            about.out,
            as_text=as_text,
            as_json=data if self.as_json else None,
            go_on=self.go_on,
            debug=self.debug,
        )
