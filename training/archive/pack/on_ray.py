"""Groups of slides on the workers of a Ray cluster. Its machines must see the same folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pathencoder.cluster.pool import WorkerLost, results
from pathencoder.cluster.session import Share, session, share_out
from pathencoder.cluster.worker import Report
from training.archive.pack.files import now_of
from training.archive.pack.group import GroupJob, group_outcome

_RETRIES = 2
_CORES = 2  # of a worker


@dataclass(frozen=True)
class _Make:
    """Prepares a worker: a function that writes one group."""

    def __call__(self, share: Share) -> Any:
        def do(job: GroupJob, report: Report) -> Any:
            outcome = group_outcome(job, share.cpus, lambda: report.progress(0, len(job.members)))
            if isinstance(outcome, Exception):
                raise outcome
            return None

        return do


def on_ray(jobs: Sequence[GroupJob], address: str) -> Iterator[tuple[int, Any]]:
    """Write groups on a cluster.

    Args:
        jobs: The groups, with absolute paths.
        address: local, auto or HOST:PORT.

    Yields:
        The number of each group, and an error or an empty record.

    Raises:
        ConfigError: No cluster answers.
        MissingExtra: Ray is not installed.
    """
    with session(address) as nodes:
        left = list(jobs)
        while left:
            plan = share_out(nodes, jobs=len(left), cores=_CORES, gpus=False)
            lost = []
            for result in results(left, _Make(), plan, retries=_RETRIES):
                job = left[result.number]
                if isinstance(result.error, WorkerLost) and now_of(job.out, job.number).exists():
                    slide = now_of(job.out, job.number).read_text(encoding="utf-8")
                    lost.append(replace(job, crashed=job.crashed | {slide}))
                elif not result.stopped:
                    yield job.number, result.error or {}
            left = lost
