"""`pathencoder encode`: one job, and what is the same for all jobs of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.ahead import Ahead
from pathencoder.cli.beside import TISSUE, Beside
from pathencoder.cli.inputs import name_of, output_of
from pathencoder.cli.job import Job
from pathencoder.cli.job_settings import settings_of
from pathencoder.cli.jobs import ended_by
from pathencoder.cli.meter import Meter
from pathencoder.cli.mpp_table import Row
from pathencoder.cli.own_files import PICTURES
from pathencoder.cli.remote_slides import copied, origin_of, say_download
from pathencoder.cli.slide_maps import draw_slide_maps
from pathencoder.cli.tile_scales import stated_scales
from pathencoder.errors import ConfigError, ImageError, PathEncoderError, SlideError
from pathencoder.features.identity import Origin
from pathencoder.features.job import Outcome, partial_path
from pathencoder.features.journal import refuse_busy
from pathencoder.features.layouts import LAYOUTS
from pathencoder.features.provenance import Settings, slide_provenance, tiles_provenance
from pathencoder.files import Mismatch
from pathencoder.formats.file_kinds import PLAIN_SUFFIXES
from pathencoder.locks import Busy
from pathencoder.mpp import scale_notes
from pathencoder.remote.staging import Staging
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.features.slide import Prepared, SlideTask

Result = Outcome | Exception  # of one file


@dataclass
class Ready:
    """A job whose turn may come: a slide that was prepared, or one that is known as done.

    Attributes:
        path: The slide, or its copy here.
        prepared: The slide; None where `results` are known already, or the job is no slide.
        results: Of each encoder.
        notes: On the download.
        held: What is freed at the end: the open slide and its copy.
    """

    path: Path
    prepared: Prepared | None = None
    results: Sequence[Result] = ()
    notes: Sequence[str] = ()
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        """Free what it holds."""
        self.held.close()


@dataclass(frozen=True)
class EncodeRun:
    """What is the same for all jobs of one command.

    Attributes:
        encoders: The encoders.
        folders: The folder for the files of each.
        out: The output folder.
        settings: Of all jobs.
        rows: Of a table with settings of single jobs, by job name.
        beside: Files of areas and coordinates of slides.
        again: Names of jobs that are encoded again although they were done.
        pictures: Also draw every slide's tissue and tiles.
        save_tissue: Also write every slide's tissue.
        staging: Copies of remote slides.
        ahead: Prepares slides in the background.
        printed: Notes that were printed.
    """

    encoders: Sequence[Encoder]
    folders: Sequence[Path]
    out: Path
    settings: Settings
    rows: Mapping[str, Row | None]
    beside: Beside
    again: AbstractSet[str]
    pictures: bool
    save_tissue: bool
    staging: Staging | None = None
    ahead: Ahead[Job, Ready] | None = None
    printed: set[str] = field(default_factory=set)

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise the ConfigError of settings that fit no input, before the first is read."""
        wrong = [self._misfit(job) for job in jobs if job.kind != "nothing"]
        if wrong and all(wrong):
            raise next(error for error in wrong if error is not None)

    def encode(self, job: Job, meter: Meter) -> list[Outcome]:
        """Do one job; errors of its input and of the output folder pass through.

        Returns:
            One outcome for each encoder.
        """
        if job.kind == "nothing":
            raise ImageError(f"{job.source}: {job.problem}")
        return self._slide(job, meter) if job.kind == "slide" else self._tiles(job, meter)

    def prepare(self, job: Job) -> Ready:
        """Open a slide, find its tissue and plan its tiles; copy a remote one here first.

        Raises:
            PathEncoderError: A remote slide cannot be copied.
        """
        from pathencoder.features.slide import prepare_slide

        with contextlib.ExitStack() as held:
            if job.kind != "slide":
                return Ready(job.source)
            path, origin, notes = job.source, None, tuple[str, ...]()
            if job.remote is not None and self.staging is not None:
                if not self.needs(job):
                    self.staging.release(job.remote)
                    known = self._remote_before(job)
                    return Ready(path, results=[result for result in known if result is not None])
                self._refuse_busy(job)
                staged, origin = held.enter_context(copied(job.remote, self.staging))
                path, notes = staged.path, staged.notes
            prepared = prepare_slide(self.encoders, self._task(job, path, origin))
            held.callback(prepared.close)
            return Ready(path, prepared, notes=notes, held=held.pop_all())

    def _refuse_busy(self, job: Job) -> None:
        """Raise Busy, before a remote slide is copied, where another process works on it."""
        assert job.remote is not None
        assert self.staging is not None
        try:
            for folder in self.folders:
                refuse_busy(partial_path(output_of(job, folder, self.settings.layout)))
        except Busy:
            self.staging.release(job.remote)
            raise

    def needs(self, job: Job) -> bool:
        """Whether a remote slide must be copied here."""
        known = self._remote_before(job)
        if any(result is None for result in known):
            return True
        drawn = (self._picture(job), self._outlines(job))
        missing = any(file is not None and not file.exists() for file in drawn)
        return missing and not all(isinstance(result, Exception) for result in known)

    def _slide(self, job: Job, meter: Meter) -> list[Outcome]:
        if job.remote and self.staging and not self._is_ready(job) and self.needs(job):
            say_download(job.remote, self.staging)
        ready = self._taken(job)
        with ready.held:
            outcomes = self._outcomes(job, ready, meter)
        for outcome in outcomes:
            outcome.source = job.source
            outcome.notes += ready.notes
        return outcomes

    def _taken(self, job: Job) -> Ready:
        """A slide that was prepared; one that was another process's then is looked at again."""
        if self.ahead is None:
            return self.prepare(job)
        try:
            ready = self.ahead.take(job)
        except Busy:
            return self.prepare(job)
        if ready.prepared is None or not ready.prepared.was_busy:
            return ready
        ready.close()
        return self.prepare(job)

    def _is_ready(self, job: Job) -> bool:
        return self.ahead is not None and self.ahead.is_ready(job)

    def _outcomes(self, job: Job, ready: Ready, meter: Meter) -> list[Outcome]:
        from pathencoder.features.slide import encode_prepared

        results = ready.results
        if ready.prepared is not None:
            results = encode_prepared(
                self.encoders,
                ready.prepared,
                progress=meter,
                on_notes=lambda notes: self._print_notes(job, notes),
                pace=meter.pace,
            )
        if len(results) == 1 and isinstance(results[0], Exception):
            raise results[0]
        outcomes = []
        for number, result in enumerate(results):
            outcomes.append(self._outcome(job, result, number, ready.path))
        return outcomes

    def _outcome(self, job: Job, result: Result, number: int, path: Path) -> Outcome:
        """The outcome of one encoder; an error of its file is its own."""
        if isinstance(result, Outcome):
            try:
                self._describe(job, result, number, path)
            except Mismatch as error:
                result = error
            else:
                return result
        outcome = ended_by(result, job.source)
        outcome.encoder = self.encoders[number].spec.name
        outcome.file = output_of(job, self.folders[number], self.settings.layout)
        return outcome

    def _describe(self, job: Job, outcome: Outcome, number: int, path: Path) -> None:
        """Note files of other layouts, and draw the maps of the features.

        Raises Mismatch where the file is damaged.
        """
        folder = self.folders[number]
        outcome.notes += _other_layouts(job, folder, self.settings.layout)
        if self.pictures and outcome.file is not None:
            maps = self.out / PICTURES / folder.relative_to(self.out)
            outcome.notes += draw_slide_maps(
                outcome.file,
                path,
                maps,
                anew=outcome.status != "before",
                overwrite=self._settings(job).overwrite,
            )

    def _task(self, job: Job, path: Path, origin: Origin | None) -> SlideTask:
        from pathencoder.features.slide import SlideTask

        settings = self._settings(job)
        files = tuple(output_of(job, folder, settings.layout) for folder in self.folders)
        return SlideTask(path, files, settings, self._picture(job), self._outlines(job), origin)

    def _picture(self, job: Job) -> Path | None:
        return self.out / PICTURES / f"{job.name}.jpg" if self.pictures else None

    def _outlines(self, job: Job) -> Path | None:
        return self.out / TISSUE / f"{job.name}.geojson" if self.save_tissue else None

    def _remote_before(self, job: Job) -> list[Result | None]:
        """For each encoder what an earlier run has left of this version of a remote slide."""
        from pathencoder.features.before import remote_done_before

        assert job.remote is not None
        settings, found = self._settings(job), list[Result | None]()
        for encoder, folder in zip(self.encoders, self.folders, strict=True):
            file = output_of(job, folder, settings.layout)
            try:
                found.append(remote_done_before(encoder, origin_of(job.remote), file, settings))
            except PathEncoderError as error:
                found.append(error)
        return found

    def _tiles(self, job: Job, meter: Meter) -> list[Outcome]:
        if len(self.encoders) == 1:
            return [self._tiles_of(job, 0, meter)]
        outcomes = []
        for number, encoder in enumerate(self.encoders):
            try:
                outcome = self._tiles_of(job, number, meter)
            except Exception as error:
                outcome = ended_by(error, job.source)
                outcome.encoder = encoder.spec.name
            outcomes.append(outcome)
        return outcomes

    def _tiles_of(self, job: Job, number: int, meter: Meter) -> Outcome:
        from pathencoder.features.tiles import tiles_to_file

        encoder, settings = self.encoders[number], self._settings(job)
        file = output_of(job, self.folders[number], settings.layout)
        notes = list[str]()
        if settings.mpp is not None or settings.overwrite or not file.exists():
            notes = notes_on_tiles(job, settings, encoder.spec.mpp)
        if settings.overwrite or not file.exists():
            self._print_notes(job, notes)
        outcome = tiles_to_file(
            encoder,
            job.folder,
            job.images,
            file,
            settings,
            keep_others=not job.whole,
            unread=job.unread,
            progress=meter,
            pace=meter.pace,
        )
        if outcome.new and not notes:
            notes = notes_on_tiles(job, settings, encoder.spec.mpp)
        outcome.source, outcome.encoder = job.source, encoder.spec.name
        outcome.notes += notes
        return outcome

    def _print_notes(self, job: Job, notes: Sequence[str]) -> None:
        """Print notes before the work begins, each sentence once in a command."""
        for note in notes:
            if note not in self.printed:
                self.printed.add(note)
                click.echo(f"{printable(name_of(job))}: note: {note}", err=True)

    def _settings(self, job: Job) -> Settings:
        row = self.rows.get(job.name)
        return settings_of(self.settings, job, row, self.beside, self.again)

    def _misfit(self, job: Job) -> ConfigError | None:
        """What is wrong with the settings for a job, without opening its input."""
        wrong = [self._misfit_of(encoder, job) for encoder in self.encoders]
        return wrong[0] if all(wrong) else None

    def _misfit_of(self, encoder: Encoder, job: Job) -> ConfigError | None:
        try:
            if job.kind == "tiles":
                tiles_provenance(encoder, self._settings(job))
            else:
                slide_provenance(encoder, replace(self._settings(job), tissue=None, coords=None))
        except ConfigError as error:
            return error
        except SlideError:  # of a file of areas or coordinates: it fails its own slide
            return None
        return None


def may_be_prepared(job: Job) -> bool:
    """Whether a job is prepared while the one before it is encoded.

    Plain images are held in memory whole: never two at a time.
    """
    return job.kind == "slide" and job.source.suffix.lower() not in PLAIN_SUFFIXES


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
