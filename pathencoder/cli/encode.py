"""`pathencoder encode`: folders of tiles, single images and slides to feature files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pathencoder.cli.common import Failed, State, debug_option, device_option, json_option, load

if TYPE_CHECKING:
    from pathencoder.cli.inputs import Job
    from pathencoder.cli.jobs import Ended
    from pathencoder.cli.meter import Meter
    from pathencoder.encoder import Encoder
    from pathencoder.errors import ConfigError
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
    from pathencoder.cli.inputs import find_jobs, name_of, refuse_nothing, source_of
    from pathencoder.cli.jobs import Loop
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
    refuse_nothing(jobs)
    make_folder(out)
    encoder = load(name, device=device, revision=revision)
    run = _Run(encoder, out, settings, mpps)
    run.check(jobs)
    ended = Loop(run.encode, source_of, name_of, debug=state.debug).run(jobs)
    raise Failed(_conclude(ended, run, jobs, as_json=as_json, debug=state.debug))


@dataclass(frozen=True)
class _Run:
    """What is the same for all jobs of one command."""

    encoder: Encoder
    out: Path
    settings: Settings
    mpps: dict[str, float]

    def check(self, jobs: list[Job]) -> None:
        """Settings that fit no input are wrong usage, found before the first. Raises ConfigError."""
        from pathencoder.network import readout

        readout(self.encoder.network, self.encoder.spec, self.settings.output)
        wrong = [self._misfit(job) for job in jobs if job.kind != "nothing"]
        if wrong and all(wrong):
            raise next(error for error in wrong if error is not None)

    def encode(self, job: Job, meter: Meter) -> Outcome:
        """Do one job; raises what its input or the output folder raises."""
        from pathencoder.errors import ImageError
        from pathencoder.slides.layouts import path_of
        from pathencoder.slides.pipeline import encode_slide
        from pathencoder.slides.tiles import encode_tiles

        if job.kind == "nothing":
            raise ImageError(f"{job.source}: {job.problem}")
        settings = self._settings(job)
        if job.kind == "slide":
            return encode_slide(self.encoder, job.source, path_of(self.out, job.name, settings.layout), settings, progress=meter)
        return encode_tiles(
            self.encoder, job.source, job.images, self.out / f"{job.name}.h5", settings, keep_others=not job.whole, progress=meter
        )

    def _settings(self, job: Job) -> Settings:
        from pathencoder.cli.mpp_table import mpp_of

        return replace(self.settings, mpp=mpp_of(job.source, self.mpps) or self.settings.mpp)

    def _misfit(self, job: Job) -> ConfigError | None:
        """What is wrong with the settings for a job, as far as its input need not be opened."""
        from pathencoder.errors import ConfigError
        from pathencoder.slides.recipe import slide_recipe, tiles_recipe

        size, overlap = self.encoder.spec.input_size, self.settings.overlap_px
        try:
            if job.kind == "tiles":
                tiles_recipe(self.encoder, self._settings(job))
            elif overlap >= size:
                return ConfigError(f"--overlap {overlap} leaves no step: tiles of {self.encoder.spec.name} are {size} px wide")
            else:
                slide_recipe(self.encoder, self._settings(job))
        except ConfigError as error:
            return error
        return None


def _conclude(ended: Ended, run: _Run, jobs: list[Job], *, as_json: bool, debug: bool) -> int:
    from pathencoder.cli import report
    from pathencoder.cli.jobs import conclude
    from pathencoder.slides.layouts import feature_name

    name = run.encoder.spec.name
    feature = feature_name(run.settings.layout) if any(j.kind == "slide" for j in jobs) else "features"

    def text(failures: Path | None) -> str:
        return report.summary(ended.outcomes, encoder=name, out=run.out, failures=failures, feature=feature)

    def data(failures: Path | None) -> dict[str, Any]:
        return report.as_json(ended.outcomes, encoder=name, out=run.out, failures=failures, status=ended.status)

    return conclude(ended, run.out, as_text=text, as_json=data if as_json else None, debug=debug)
