"""`encode --only-tissue`: the tissue and the tiles of slides, without an encoder's weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import click

from pathencoder.cli import report
from pathencoder.cli.beside import TISSUE, Beside
from pathencoder.cli.common import plural
from pathencoder.cli.encode_task import EncodeTask
from pathencoder.cli.inputs import name_of, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.job_settings import settings_of
from pathencoder.cli.jobs import Ended, Loop
from pathencoder.cli.meter import Meter
from pathencoder.cli.mpp_table import Row
from pathencoder.cli.own_files import PICTURES
from pathencoder.cli.ray_run import run_on_ray
from pathencoder.cli.remote_slides import copied, origin_of, say_download, staging_of
from pathencoder.cli.summary_files import TISSUE_SUMMARY, write_summaries
from pathencoder.cluster.session import Plan, Share
from pathencoder.errors import SlideError, StoreError
from pathencoder.features.coords import Made, coords_before, remote_coords_before, write_coords
from pathencoder.features.identity import Origin, identify_slide
from pathencoder.features.job import Outcome
from pathencoder.features.plan import SlidePlan, place_of_tiles, plan_slide, scale_of
from pathencoder.features.provenance import Settings, grid_recipe
from pathencoder.files import make_folder
from pathencoder.remote.slides import RemoteSlide
from pathencoder.remote.staging import Scratch, Staging
from pathencoder.slides.overlay import write_overlay
from pathencoder.slides.own_picture import may_replace, notes_on
from pathencoder.slides.reader import open_slide
from pathencoder.slides.tissue_file import keep_or_write_tissue, write_tissue
from pathencoder.spec import EncoderSpec
from pathencoder.walk import printable

COORDS = "coords"  # the folder of coordinates in an output folder
NO_SLIDE = "no slide: its tiles are all tissue"
_MADE = ("done", "empty", "before")


def coords_of(out: Path, job: Job) -> Path:
    """The file of a slide's coordinates in an output folder."""
    return out / COORDS / f"{job.name}.h5"


def find_all_tissue(spec: EncoderSpec, task: EncodeTask) -> int:
    """Write the tissue, the coordinates of the tiles and, if wanted, a picture of every slide.

    Args:
        spec: Of the encoder: the size and scale of its tiles.
        task: The slides, and how they are read; tiles are not slides, and fail.

    Returns:
        The exit status.
    """
    jobs, scales, beside = task.found.jobs, task.scales, task.beside
    rows = {job.name: row for job, row in zip(jobs, scales.rows, strict=True)}
    run = _Run(spec, rows, task.settings, task.out, beside, task.again, task.pictures)
    if task.ray is not None:
        files = [*beside.tissue.values(), *beside.coords.values(), *scales.files]
        cores = replace(task.ray, gpus=False)
        prepare = _OnWorker(run, task.scratch)
        ended = run_on_ray(jobs, prepare, cores, out=task.out, files=files, debug=task.debug)
    else:
        with staging_of(jobs, task.scratch, run.needs) as staging:
            run = replace(run, staging=staging)
            ended = Loop(run.one, source_of, name_of, debug=task.debug).run(jobs)
    notes = [*scales.notes, *beside.notes, *task.notes]
    about = report.About(spec.name, task.out, task.found.left_out, notes)
    return _conclude(ended, about, task)


@dataclass(frozen=True)
class _Run:
    """What is the same for all slides of one command."""

    spec: EncoderSpec
    rows: Mapping[str, Row | None]
    settings: Settings
    out: Path
    beside: Beside
    again: AbstractSet[str]
    pictures: bool
    staging: Staging | None = None

    def one(self, job: Job, _: Meter) -> Outcome:
        """Find the tissue of one slide and write it, unless an earlier run has."""
        outcome = self._one(job)
        if self.pictures:
            overwrite = self._settings(job).overwrite
            outcome.notes += notes_on(self._file(PICTURES, job, ".jpg"), overwrite=overwrite)
        return outcome

    def _one(self, job: Job) -> Outcome:
        if job.kind != "slide":
            raise SlideError(f"{job.source}: {job.problem or NO_SLIDE}")
        if job.remote is None or self.staging is None:
            return self._slide(job, job.source)
        if not self.needs(job):
            self.staging.release(job.remote)
            known = self._remote_before(job, job.remote)
            assert known is not None
            return self._known(job, known)
        say_download(job.remote, self.staging)
        with copied(job.remote, self.staging) as (staged, origin):
            outcome = self._slide(job, staged.path, origin)
        outcome.notes += staged.notes
        return outcome

    def needs(self, job: Job) -> bool:
        """Whether a remote slide must be copied here.

        Raises:
            PathEncoderError: Its file is of other settings, or damaged.
        """
        assert job.remote is not None
        return self._remote_before(job, job.remote) is None or self._lacks_file(job)

    def _remote_before(self, job: Job, remote: RemoteSlide) -> Outcome | None:
        file, settings = coords_of(self.out, job), self._settings(job)
        return remote_coords_before(origin_of(remote), file, self.spec, settings)

    def _slide(self, job: Job, path: Path, origin: Origin | None = None) -> Outcome:
        started, settings = time.monotonic(), self._settings(job)
        coords = coords_of(self.out, job)
        before = coords_before(path, coords, self.spec, settings, origin)
        if before is not None and not self._lacks_file(job):
            return self._known(job, before)
        slide = open_slide(path)
        try:
            plan = plan_slide(self.spec, slide, scale_of(self.spec, slide, settings), settings)
            place = place_of_tiles(slide, plan.grid)
            identity = identify_slide(slide.path, origin)
        finally:
            slide.close()
        if before is None:
            outcome = self._write(job, plan, settings)
            made = Made(grid_recipe(self.spec, settings), identity, outcome.notes)
            make_folder(coords.parent)
            write_coords(place, coords, made)  # last: it says that the slide is done
        else:
            outcome = self._known(job, before)
            outcome.notes += self._restore(job, plan)
        if self.pictures:
            picture = self._file(PICTURES, job, ".jpg")
            if may_replace(picture, overwrite=settings.overwrite):
                title = printable(job.source.name)
                write_overlay(plan.tissue, plan.grid, picture, title=title)
            outcome.picture = picture
        outcome.seconds = time.monotonic() - started
        return outcome

    def _write(self, job: Job, plan: SlidePlan, settings: Settings) -> Outcome:
        """Write the tissue of a slide."""
        outlines, rows = self._file(TISSUE, job, ".geojson"), len(plan.grid.coords)
        kept = keep_or_write_tissue(
            plan.tissue, outlines, drawn=settings.tissue, overwrite=settings.overwrite
        )
        share = f"{100 * plan.tissue.mask.mean():.0f} % tissue"
        notes = [share, *plan.notes, *kept]
        status = "done" if rows else "empty"
        return Outcome(job.source, status, outlines, rows=rows, notes=notes)

    def _known(self, job: Job, before: Outcome) -> Outcome:
        """The outcome of a slide that an earlier run has done."""
        return replace(before, source=job.source, file=self._file(TISSUE, job, ".geojson"))

    def _restore(self, job: Job, plan: SlidePlan) -> list[str]:
        """Write the tissue of a slide that is done where its file is missing; returns a note."""
        outlines = self._file(TISSUE, job, ".geojson")
        if outlines.exists():
            return []
        write_tissue(plan.tissue, outlines)
        return ["its missing file of tissue is written again"]

    def _lacks_file(self, job: Job) -> bool:
        """Whether the tissue or the picture of a slide that is done is missing."""
        files = [self._file(TISSUE, job, ".geojson")]
        files += [self._file(PICTURES, job, ".jpg")] if self.pictures else []
        return not all(file.exists() for file in files)

    def _settings(self, job: Job) -> Settings:
        return settings_of(self.settings, job, self.rows[job.name], self.beside, self.again)

    def _file(self, folder: str, job: Job, end: str) -> Path:
        file = self.out / folder / f"{job.name}{end}"
        make_folder(file.parent)
        return file


@dataclass(frozen=True)
class _OnWorker:
    """Prepares a worker of a cluster: the same run with its own staging."""

    run: _Run
    scratch: Scratch

    def __call__(self, _: Share, plan: Plan) -> Callable[[Job, Meter], Outcome]:
        scratch = replace(self.scratch, gb=self.scratch.gb / plan.on_one_node)

        def one(job: Job, meter: Meter) -> Outcome:
            with staging_of([job], scratch, self.run.needs) as staging:
                return replace(self.run, staging=staging).one(job, meter)

        return one


def _conclude(ended: Ended, about: report.About, task: EncodeTask) -> int:
    try:
        table = write_summaries(about.out, ended.outcomes, name=TISSUE_SUMMARY)
        about = replace(about, table=table)
    except StoreError as error:
        click.echo(f"warning: {printable(str(error))}", err=True)

    def text(failures: Path | None) -> str:
        lines = [line for outcome in ended.outcomes for line in report.lines_of(outcome, "tile")]
        lines += [*report.left_out_lines(about.left_out), *(f"Note: {n}" for n in about.notes)]
        tiles = sum(o.rows for o in ended.outcomes)
        slides = plural(sum(o.status in _MADE for o in ended.outcomes), "slide")
        lines.append(
            f"{plural(tiles, 'tile')} for {about.encoder} on {slides}. Embed them:"
            f" pathencoder encode SLIDES --coords {about.out / COORDS} --out FEATURES"
        )
        lines += [f"All inputs of this folder: {about.table}"] if about.table else []
        return "\n".join([*lines, *report.failure_lines(ended.outcomes, failures)])

    return task.conclude(ended, about, text)
