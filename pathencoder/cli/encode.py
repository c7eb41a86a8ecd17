"""`pathencoder encode`: folders of tiles, single images and slides to feature files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pathencoder.cli.common import Failed, State, debug_option, device_option, echo_json, json_option, load

if TYPE_CHECKING:
    from pathencoder.cli.inputs import Job
    from pathencoder.encoder import Encoder
    from pathencoder.slides.recipe import Settings
    from pathencoder.slides.work import Outcome

OUTPUTS = ("embedding", "cls", "mean", "cls_mean", "multi", "dense")


def _batch_size(_: click.Context, __: click.Parameter, value: str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter("a whole number above zero, or auto")
    return int(value)


@click.command(short_help="Embed tiles and slides.")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the feature files.")
@click.option("--encoder", "name", default=None, help="Name, folder or owner/repo; `pathencoder list`. Default: the bundled one.")
@click.option("--revision", default=None, help="Revision of the encoder on the Hub.")
@click.option("--mpp", type=click.FloatRange(0.01, 100), help="Micrometres per pixel of the inputs; overrides what a slide says.")
@click.option(
    "--mpp-csv",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Table with columns slide and mpp, for inputs that do not say theirs, or say it wrongly; goes before --mpp.",
)
@click.option("--target-mpp", type=click.FloatRange(0.01, 100), help="Scale at which inputs are read. Default: the encoder's own.")
@click.option("--as", "taken_as", type=click.Choice(["tiles", "slides"]), help="What the inputs are, where the suffix does not tell.")
@click.option(
    "--layout", type=click.Choice(["trident", "clam", "stamp"]), default="trident", show_default=True, help="Whose file layout slides get."
)
@click.option("--output", type=click.Choice(OUTPUTS), default="embedding", show_default=True, help="Which numbers of the encoder.")
@click.option("--overlap", type=click.IntRange(0), default=0, show_default=True, help="Overlap of slide tiles, in pixels of the tile.")
@click.option(
    "--min-tissue", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Share of a slide tile that must be tissue."
)
@click.option("--batch-size", default="auto", show_default=True, callback=_batch_size, help="Tiles at a time.")
@click.option("--overwrite", is_flag=True, help="Start anew instead of going on where an earlier run stopped.")
@device_option
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    inputs: tuple[Path, ...],
    out: Path,
    name: str | None,
    revision: str | None,
    mpp: float | None,
    mpp_csv: Path | None,
    target_mpp: float | None,
    taken_as: str | None,
    layout: str,
    output: str,
    overlap: int,
    min_tissue: float,
    batch_size: int | Literal["auto"],
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Embed INPUTS: folders of tiles, single images, slides, or folders of slides.

    A folder of tiles gives one HDF5 file with `features` and `keys`, a slide one with `features` and `coords`. The same command again goes
    on where it stopped. What fails is listed in OUT/failures.csv and does not stop the rest (exit status 3).

    \b
    pathencoder encode tiles/ --out features
    pathencoder encode slides/*.svs --out features --encoder uni2-h --layout clam
    pathencoder encode scan.tif --as slides --mpp 0.25 --out features
    """
    from pathencoder.cli.inputs import find_jobs
    from pathencoder.cli.mpp_table import read_mpp_csv
    from pathencoder.slides.files import make_folder
    from pathencoder.slides.recipe import Settings

    if output == "dense" and layout != "trident":
        raise click.UsageError("dense features are maps, and only --layout trident holds them")
    settings = Settings(
        output=output,
        mpp=mpp,
        target_mpp=target_mpp,
        overlap_px=overlap,
        min_tissue=min_tissue,
        layout=layout,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    mpps = read_mpp_csv(mpp_csv) if mpp_csv else {}
    jobs = find_jobs(inputs, taken_as=taken_as)
    make_folder(out)
    encoder = load(name, device=device, revision=revision)
    if any(job.kind == "slide" for job in jobs) and overlap >= encoder.spec.input_size:
        raise click.UsageError(f"--overlap {overlap} leaves no step: tiles of {encoder.spec.name} are {encoder.spec.input_size} px wide")
    raise Failed(_Run(encoder, out, settings, mpps, state, as_json=as_json).all(jobs))


class _Run:
    """One run over all jobs: collects what became of each and reports in the end, also when something stops it."""

    def __init__(self, encoder: Encoder, out: Path, settings: Settings, mpps: dict[str, float], state: State, *, as_json: bool) -> None:
        self.encoder, self.out, self.settings, self.mpps, self.state, self.as_json = encoder, out, settings, mpps, state, as_json
        self.outcomes: list[Outcome] = []

    def all(self, jobs: list[Job]) -> int:
        """Do every job; the exit status."""
        from pathencoder.errors import StoreError

        try:
            for number, job in enumerate(jobs, 1):
                if len(jobs) > 1:
                    click.echo(f"[{number}/{len(jobs)}] {job.source}", err=True)
                self.outcomes.append(self._one(job))
        except KeyboardInterrupt:
            self._report(jobs, 130)
            click.echo("Interrupted. What is done is kept: the same command goes on from there.", err=True)
            return 130
        except StoreError as error:
            self._report(jobs, 1)
            if self.state.debug:
                raise
            click.echo(f"error: {error}", err=True)
            return 1
        from pathencoder.cli.report import exit_status

        return self._report(jobs, exit_status(self.outcomes))

    def _one(self, job: Job) -> Outcome:
        from pathencoder.cli.meter import Meter
        from pathencoder.errors import ConfigError, PathEncoderError, StoreError
        from pathencoder.slides.files import Mismatch
        from pathencoder.slides.journal import Busy
        from pathencoder.slides.work import Outcome

        meter = Meter(job.name)
        try:
            with meter:
                return self._encode(job, meter)
        except Busy:
            return Outcome(job.source, "busy")
        except Mismatch as error:
            return _failed(job, error)
        except (StoreError, KeyboardInterrupt):
            self.outcomes.append(Outcome(job.source, "stopped", notes=[f"{meter.done:,} of {meter.total:,} done"] if meter.total else []))
            raise
        except ConfigError:
            raise
        except PathEncoderError as error:
            return _failed(job, error)
        except Exception as error:  # a bad input never stops a good one, whatever it is that nobody thought of
            if self.state.debug:
                raise
            return _failed(job, error)

    def _encode(self, job: Job, meter: object) -> Outcome:
        from pathencoder.cli.mpp_table import mpp_of
        from pathencoder.errors import ImageError
        from pathencoder.slides.layouts import path_of
        from pathencoder.slides.pipeline import encode_slide
        from pathencoder.slides.tiles import encode_tiles

        if job.kind == "nothing":
            raise ImageError(f"{job.source}: {job.problem}")
        assert callable(meter)
        settings = replace(self.settings, mpp=mpp_of(job.source, self.mpps) or self.settings.mpp)
        if job.kind == "slide":
            return encode_slide(self.encoder, job.source, path_of(self.out, job.name, settings.layout), settings, progress=meter)
        return encode_tiles(
            self.encoder, job.source, job.images, self.out / f"{job.name}.h5", settings, keep_others=not job.whole, progress=meter
        )

    def _report(self, jobs: list[Job], status: int) -> int:
        from pathencoder.cli import report
        from pathencoder.errors import StoreError
        from pathencoder.slides.layouts import feature_name
        from pathencoder.slides.work import Outcome

        name = self.encoder.spec.name
        outcomes = self.outcomes + [Outcome(job.source, "unreached") for job in jobs[len(self.outcomes) :]]
        failures = None
        try:
            failures = report.write_failures(self.out, outcomes)
        except StoreError as error:
            click.echo(f"warning: {error}", err=True)
        if self.as_json:
            echo_json(report.as_json(outcomes, encoder=name, out=self.out, failures=failures, status=status))
        else:
            feature = feature_name(self.settings.layout) if any(j.kind == "slide" for j in jobs) else "features"
            click.echo(report.summary(outcomes, encoder=name, out=self.out, failures=failures, feature=feature))
        return status


def _failed(job: Job, error: Exception) -> Outcome:
    from pathencoder.errors import PathEncoderError
    from pathencoder.slides.store import Failure
    from pathencoder.slides.work import Outcome

    text = str(error) if isinstance(error, PathEncoderError) else f"{type(error).__name__}: {error} (--debug shows where)"
    return Outcome(job.source, "failed", failures=[Failure("", text, type(error).__name__)])
