"""`pathencoder encode`: folders of tiles, single images and slides to feature files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    InputPath,
    State,
    debug_option,
    devices_option,
    json_option,
    scratch_options,
    spec_of,
)
from pathencoder.cli.shard import Shard, as_shard
from pathencoder.errors import OfflineError
from pathencoder.walk import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathencoder.cli.encode_task import EncodeTask
    from pathencoder.spec import EncoderSpec

RUNTIMES = ("auto", "torch", "onnx", "openvino")  # not imported: that would import torch
VIEWS = ("1", "4", "8")
OUTPUTS = ("embedding", "cls", "mean", "cls_mean", "multi", "dense")


def _batch_size(_: click.Context, __: click.Parameter, value: str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter("a whole number above zero, or auto")
    return int(value)


@click.command(short_help="Embed tiles and slides.")
@click.argument("inputs", nargs=-1, required=True, type=InputPath(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the feature files.",
)
@click.option(
    "--encoder",
    "names",
    multiple=True,
    help="Name, folder or owner/repo; `pathencoder list`. Default: the bundled one. Several (repeat"
    " it) share each slide and write to OUT/ENCODER.",
)
@click.option("--revision", default=None, help="Revision of the encoder on the Hub.")
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the inputs; overrides what a slide states.",
)
@click.option(
    "--slides-csv",
    "--mpp-csv",
    "mpp_csv",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=(
        "Table with settings of single inputs: a column slide, and mpp, target_mpp, min_tissue or"
        " tissue (a GeoJSON file); takes precedence over the options of these names."
    ),
)
@click.option(
    "--target-mpp",
    type=click.FloatRange(0.01, 100),
    help="Scale at which inputs are read. Default: the encoder's own.",
)
@click.option(
    "--as",
    "taken_as",
    type=click.Choice(["tiles", "slides"]),
    help="What the inputs are, where the suffix does not show it.",
)
@click.option(
    "--layout",
    type=click.Choice(["trident", "clam", "stamp", "anndata", "zarr"]),
    default="trident",
    show_default=True,
    help="Layout of the files of slides.",
)
@click.option(
    "--output",
    type=click.Choice(OUTPUTS),
    default="embedding",
    show_default=True,
    help="Which numbers of the encoder.",
)
@click.option(
    "--views",
    type=click.Choice(VIEWS),
    default="1",
    show_default=True,
    help="4 averages each row over the quarter turns of its tile, 8 over those of its mirror image"
    " too, in 4 or 8 times the time.",
)
@click.option(
    "--overlap",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Overlap of slide tiles, in pixels of the tile.",
)
@click.option(
    "--min-tissue",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="Share of a slide tile that must be tissue.",
)
@click.option(
    "--tissue",
    type=FilledPath(path_type=Path, exists=True),
    help="GeoJSON of the areas to embed, as QuPath exports it, or a folder with NAME.geojson of"
    " each slide, in place of the tissue that is found.",
)
@click.option(
    "--coords",
    type=FilledPath(path_type=Path, exists=True),
    help="HDF5 file of TRIDENT's or CLAM's patches, or a feature file, or a folder of them: the"
    " tiles at its coordinates are embedded.",
)
@click.option(
    "--save-tissue",
    is_flag=True,
    help="Also write the tissue of every slide for QuPath, as OUT/tissue/NAME.geojson.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="Of the network; auto is that of the weights. The others change the numbers a little; int8"
    " needs an exported file.",
)
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="torch, onnx, openvino, or a file or folder of `pathencoder export`. Auto takes the"
    " fastest that gives the same numbers.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read and decode. Default: one for each core, at most 16.",
)
@click.option(
    "--batch-size", default="auto", show_default=True, callback=_batch_size, help="Tiles at a time."
)
@click.option(
    "--pictures",
    is_flag=True,
    help=(
        "Also draw the tissue and tiles of every slide, as OUT/pictures/NAME.jpg, and its features,"
        " in pictures/pca and pictures/clusters."
    ),
)
@click.option(
    "--qc",
    is_flag=True,
    help="Also measure the blur, pen, folds and tissue of every tile of slides, as columns.",
)
@scratch_options
@click.option(
    "--only-tissue",
    is_flag=True,
    help="Find the tissue and the tiles of slides and write them, in OUT/tissue and OUT/coords;"
    " embed nothing.",
)
@click.option(
    "--shard",
    callback=as_shard,
    metavar="I/N",
    help="Only the inputs of share I of N, a fixed one by their names: one job of an array each.",
)
@click.option(
    "--ray",
    "address",
    metavar="ADDRESS",
    help="Spread the inputs over a Ray cluster: local (this machine's cores and GPUs), auto, or"
    " HOST:PORT.",
)
@click.option(
    "--ray-cores",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Cores of each worker of --ray that has no GPU.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Only inputs in OUT/failures.csv; slides of which some tiles failed are encoded again.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Start again instead of resuming an earlier run.")
@devices_option
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    inputs: tuple[Path, ...],
    out: Path,
    names: tuple[str, ...],
    revision: str | None,
    mpp: float | None,
    mpp_csv: Path | None,
    target_mpp: float | None,
    taken_as: str | None,
    layout: str,
    output: str,
    views: str,
    overlap: int,
    min_tissue: float,
    tissue: Path | None,
    coords: Path | None,
    save_tissue: bool,
    precision: str,
    runtime: str,
    workers: int | None,
    batch_size: int | Literal["auto"],
    pictures: bool,
    qc: bool,
    scratch: Path | None,
    scratch_gb: float,
    only_tissue: bool,
    shard: Shard | None,
    address: str | None,
    ray_cores: int,
    retry_failed: bool,
    dry_run: bool,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Embed INPUTS: folders of tiles, single images, slides, folders or URLs of slides.

    A folder of tiles becomes one HDF5 file with `features` and `keys`, a slide one with
    `features` and `coords`. The same command again resumes where it stopped. Inputs that fail are
    listed in OUT/failures.csv and do not stop the others (exit status 3). In Python:
    pathencoder.encode_slide, Encoder.encode, pathencoder.read_features.

    \b
    pathencoder encode tiles/ --out features
    pathencoder encode slides/*.svs --out features --encoder uni2-h --layout clam
    pathencoder encode scan.tif --as slides --mpp 0.25 --out features
    pathencoder encode s3://bucket/slides/ --out features
    """
    from pathencoder.cli.beside import find_beside
    from pathencoder.cli.chosen import of_shard, only_failed
    from pathencoder.cli.encode_run import encode_all
    from pathencoder.cli.encode_task import EncodeTask
    from pathencoder.cli.inputs import find_inputs, refuse_nothing
    from pathencoder.cli.lanes import load_lanes
    from pathencoder.cli.mpp_table import assign, read_mpp_csv
    from pathencoder.cli.own_files import refuse_pictures_of_inputs
    from pathencoder.cli.ray_options import ray_options
    from pathencoder.cli.tissue_run import find_all_tissue
    from pathencoder.features.provenance import Settings
    from pathencoder.files import make_folder
    from pathencoder.remote.staging import Scratch

    if len(names) > 1 and (revision or only_tissue):
        option = "--revision (write NAME@REVISION)" if revision else "--only-tissue"
        raise click.UsageError(f"{option} goes with one --encoder")
    settings = Settings(
        output=output,
        views=int(views),
        mpp=mpp,
        target_mpp=target_mpp,
        overlap_px=overlap,
        min_tissue=min_tissue,
        layout=layout,
        precision=precision,
        runtime=_runtime(runtime),
        workers=workers,
        batch_size=batch_size,
        overwrite=overwrite,
        qc=qc,
    )
    ray = ray_options(address, ray_cores, device=device, names=names, revision=revision)
    rows = read_mpp_csv(mpp_csv) if mpp_csv else []
    found = find_inputs(inputs, taken_as=taken_as, out=out)
    refuse_nothing(found)
    if pictures:
        refuse_pictures_of_inputs(out, found.jobs)
    beside = find_beside(tissue, coords, found.jobs)  # of all: shards share files of one name
    every, scales = list(found.jobs), assign(rows, found.jobs)  # of all: a row may name another's
    notes = of_shard(found, shard)
    again, of_failed = only_failed(found, out) if retry_failed else (frozenset(), [])
    task = EncodeTask(
        found=found,
        scales=scales.of(found.jobs, every),
        settings=settings,
        out=out,
        beside=beside,
        again=again,
        notes=[*notes, *of_failed],
        pictures=pictures,
        save_tissue=save_tissue,
        only_tissue=only_tissue,
        scratch=Scratch(scratch, scratch_gb),
        ray=ray,
        as_json=as_json,
        debug=state.debug,
    )
    if dry_run:
        raise Failed(_dry_run(task, names or (None,), revision))
    make_folder(out)
    if only_tissue:
        raise Failed(find_all_tissue(spec_of(names[0] if names else None, revision), task))
    devices, asked = "cpu" if ray else device, settings.of_network()
    lanes = load_lanes(names, devices=devices, settings=asked, revision=revision)
    raise Failed(encode_all(lanes, task))


def _dry_run(task: EncodeTask, names: Sequence[str | None], revision: str | None) -> int:
    from pathencoder.cli.dry_run import dry_run_of
    from pathencoder.cli.lanes import folders_of

    specs = [_known_spec(name, revision) for name in names]
    named = [spec.name if spec else str(name) for spec, name in zip(specs, names, strict=True)]
    return dry_run_of(task, specs, folders_of(task.out, named))


def _runtime(text: str) -> str | Path:
    """A runtime's name, or a path, which the workers of a cluster find from their own folders."""
    place = expanded(text)
    return place.absolute() if text not in RUNTIMES and place.exists() else text


def _known_spec(name: str | None, revision: str | None) -> EncoderSpec | None:
    """The encoder's spec; None where only the Hub has it and does not answer."""
    try:
        return spec_of(name, revision)
    except OfflineError:
        return None
