"""`pathencoder encode` after its command line was parsed: all jobs, then the summary."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli import report
from pathencoder.cli.beside import TISSUE, Beside
from pathencoder.cli.inputs import Found, name_of, output_of, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended, Loop, conclude
from pathencoder.cli.meter import Meter
from pathencoder.cli.mpp_table import Scales
from pathencoder.cli.own_files import PICTURES
from pathencoder.cli.remote_slides import copied, origin_of, staging_of
from pathencoder.cli.slide_maps import draw_slide_maps
from pathencoder.cli.tile_scales import stated_scales
from pathencoder.errors import ConfigError, ImageError, SlideError
from pathencoder.features.identity import Origin
from pathencoder.features.job import Outcome
from pathencoder.features.layouts import LAYOUTS
from pathencoder.features.provenance import Settings, slide_provenance, tiles_provenance
from pathencoder.mpp import scale_notes
from pathencoder.remote.staging import Scratch, Staging
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def encode_all(
    encoder: Encoder,
    found: Found,
    scales: Scales,
    settings: Settings,
    out: Path,
    *,
    beside: Beside,
    again: AbstractSet[str],
    notes: Sequence[str],
    pictures: bool,
    save_tissue: bool,
    scratch: Scratch,
    as_json: bool,
    debug: bool,
) -> int:
    """Encode every job and report.

    Args:
        encoder: The encoder.
        found: The jobs, and what was left out.
        scales: The scale of each job, where a table gives it.
        settings: The same for all.
        out: An existing folder.
        beside: Files of areas and coordinates of slides.
        again: Names of jobs that are encoded again although they were done.
        notes: For the summary.
        pictures: Also draw every slide's tissue and tiles.
        save_tissue: Also write every slide's tissue.
        scratch: Where copies of remote slides lie.
        as_json: Print JSON instead of text.
        debug: Print tracebacks.

    Returns:
        The exit status.

    Raises:
        ConfigError: Settings that fit no input.
    """
    mpps = {
        job.name: mpp for job, mpp in zip(found.jobs, scales.mpps, strict=True) if mpp is not None
    }
    run = _Run(encoder, out, settings, mpps, beside, again, pictures, save_tissue)
    run.check(found.jobs)
    with staging_of(found.jobs, scratch, run.needs) as staging:
        run = replace(run, staging=staging)
        ended = Loop(run.encode, source_of, name_of, debug=debug).run(found.jobs)
    none_to_draw = pictures and not any(job.kind == "slide" for job in found.jobs)
    notes = [
        *notes,
        *scales.notes,
        *beside.notes,
        *(["--pictures draws slides, and no input is a slide"] if none_to_draw else []),
    ]
    return _conclude(ended, run, found, notes, as_json=as_json, debug=debug)


@dataclass(frozen=True)
class _Run:
    """What is the same for all jobs of one command.

    `mpps` are scales from a table, by job name.
    """

    encoder: Encoder
    out: Path
    settings: Settings
    mpps: dict[str, float]
    beside: Beside
    again: AbstractSet[str]
    pictures: bool
    save_tissue: bool
    staging: Staging | None = None
    printed: set[str] = field(default_factory=set)

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise the ConfigError of settings that fit no input, before the first is read."""
        wrong = [self._misfit(job) for job in jobs if job.kind != "nothing"]
        if wrong and all(wrong):
            raise next(error for error in wrong if error is not None)

    def encode(self, job: Job, meter: Meter) -> Outcome:
        """Do one job; errors of its input and of the output folder pass through."""
        if job.kind == "nothing":
            raise ImageError(f"{job.source}: {job.problem}")
        return self._slide(job, meter) if job.kind == "slide" else self._tiles(job, meter)

    def needs(self, job: Job) -> bool:
        """Whether a remote slide must be copied here."""
        drawn = (self._picture(job), self._outlines(job))
        if any(file is not None and not file.exists() for file in drawn):
            return True
        return self._remote_before(job) is None

    def _slide(self, job: Job, meter: Meter) -> Outcome:
        if job.remote is None or self.staging is None:
            return self._slide_at(job, job.source, None, meter)
        if not self.needs(job) and (before := self._remote_before(job)) is not None:
            self.staging.release(job.remote)
            before.source = job.source
            return before
        with copied(job.remote, self.staging) as (staged, origin):
            outcome = self._slide_at(job, staged.path, origin, meter)
        outcome.source = job.source
        outcome.notes += staged.notes
        return outcome

    def _slide_at(self, job: Job, path: Path, origin: Origin | None, meter: Meter) -> Outcome:
        from pathencoder.features.slide import slide_to_file

        settings = self._settings(job)
        outcome = slide_to_file(
            self.encoder,
            path,
            output_of(job, self.out, settings.layout),
            settings,
            picture=self._picture(job),
            outlines=self._outlines(job),
            progress=meter,
            on_notes=lambda notes: self._print_notes(job, notes),
            origin=origin,
        )
        outcome.notes += _other_layouts(job, self.out, settings.layout)
        if self.pictures and outcome.file is not None:
            outcome.notes += draw_slide_maps(
                outcome.file, path, self.out, anew=outcome.status != "before"
            )
        return outcome

    def _picture(self, job: Job) -> Path | None:
        return self.out / PICTURES / f"{job.name}.jpg" if self.pictures else None

    def _outlines(self, job: Job) -> Path | None:
        return self.out / TISSUE / f"{job.name}.geojson" if self.save_tissue else None

    def _remote_before(self, job: Job) -> Outcome | None:
        """The outcome of an earlier run for this version of a remote slide."""
        from pathencoder.features.slide import remote_done_before

        assert job.remote is not None
        settings = self._settings(job)
        file = output_of(job, self.out, settings.layout)
        return remote_done_before(self.encoder, origin_of(job.remote), file, settings)

    def _tiles(self, job: Job, meter: Meter) -> Outcome:
        from pathencoder.features.tiles import tiles_to_file

        settings = self._settings(job)
        notes, file = list[str](), output_of(job, self.out, settings.layout)
        if settings.mpp is not None or settings.overwrite or not file.exists():
            notes = notes_on_tiles(job, settings, self.encoder.spec.mpp)
        if settings.overwrite or not file.exists():
            self._print_notes(job, notes)
        outcome = tiles_to_file(
            self.encoder,
            job.folder,
            job.images,
            file,
            settings,
            keep_others=not job.whole,
            progress=meter,
        )
        if outcome.new and not notes:
            notes = notes_on_tiles(job, settings, self.encoder.spec.mpp)
        outcome.source = job.source
        outcome.notes += notes
        return outcome

    def _print_notes(self, job: Job, notes: Sequence[str]) -> None:
        """Print notes before the work begins, each sentence once in a command."""
        for note in notes:
            if note not in self.printed:
                self.printed.add(note)
                click.echo(f"{printable(name_of(job))}: note: {note}", err=True)

    def _settings(self, job: Job) -> Settings:
        return replace(
            self.settings,
            mpp=self.mpps.get(job.name, self.settings.mpp),
            tissue=self.beside.tissue.get(job.name),
            coords=self.beside.coords.get(job.name),
            overwrite=self.settings.overwrite or job.name in self.again,
        )

    def _misfit(self, job: Job) -> ConfigError | None:
        """What is wrong with the settings for a job, without opening its input."""
        try:
            if job.kind == "tiles":
                tiles_provenance(self.encoder, self._settings(job))
            else:
                slide_provenance(
                    self.encoder, replace(self._settings(job), tissue=None, coords=None)
                )
        except ConfigError as error:
            return error
        except SlideError:  # of a file of areas or coordinates: it fails its own slide
            return None
        return None


def notes_on_tiles(job: Job, settings: Settings, encoder_mpp: float | None) -> list[str]:
    """Notes on the scale of a folder of tiles, before they are read.

    Args:
        job: The tiles.
        settings: With the scale that the user gave.
        encoder_mpp: Micrometres per pixel that the encoder was trained at; None: unknown.
    """
    if not encoder_mpp:
        return []
    if settings.mpp is None:
        return stated_scales(job.images)
    return scale_notes(settings.mpp, settings.target_mpp or encoder_mpp, encoder_mpp)


def _other_layouts(job: Job, out: Path, layout: str) -> list[str]:
    """A note where the slide has a file of another layout, which stays as it is."""
    file = output_of(job, out, layout)
    others = {output_of(job, out, other) for other in LAYOUTS} - {file}
    return [f"{other}, of another layout, is kept" for other in sorted(others) if other.exists()]


def _conclude(
    ended: Ended, run: _Run, found: Found, notes: Sequence[str], *, as_json: bool, debug: bool
) -> int:
    about = report.About(run.encoder.spec.name, run.out, found.left_out, notes)

    def text(failures: Path | None) -> str:
        return report.summary(ended.outcomes, about, failures=failures)

    def data(failures: Path | None) -> dict[str, Any]:
        return report.as_json(ended.outcomes, about, failures=failures, status=ended.status)

    return conclude(ended, run.out, as_text=text, as_json=data if as_json else None, debug=debug)
