"""`pathencoder nuclei`: every nucleus of images and slide regions, as labels, outlines, a table and a picture."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import Failed, debug_option, duration, echo_json, json_option, plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathencoder.nuclei.network import NucleiNetwork
    from pathencoder.nuclei.segment import Nuclei
    from pathencoder.slides.work import Outcome

_ADAPTED = "network"  # the folder in --out that --adapt writes


@dataclass(frozen=True)
class Picture:
    """One image to look at: its file, the name of its output files, and the region of a slide (x, y, width, height) or None."""

    file: Path
    name: str
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Wish:
    """What is asked for all images alike."""

    out: Path
    mpp: float | None
    stain: str | None


@click.command(short_help="Find nuclei in H&E and IHC images.")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the results.")
@click.option("--mpp", type=click.FloatRange(0.05, 2), help="Micrometres per pixel of the images. Default: a slide's own, else 0.25.")
@click.option("--stain", type=click.Choice(["he", "ihc"]), help="H&E, or DAB and hematoxylin. Default: guessed for each image.")
@click.option("--adapt", is_flag=True, help="First retrain the network on these images, without labels, and keep it in OUT/network.")
@click.option("--network", type=click.Path(path_type=Path, file_okay=False), help="A folder that --adapt wrote. Default: the bundled one.")
@click.option("--region", nargs=4, type=click.IntRange(0), metavar="X Y W H", help="The part of a slide to look at, in level-0 pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --adapt.")
@json_option
@debug_option
def command(
    *,
    images: tuple[Path, ...],
    out: Path,
    mpp: float | None,
    stain: str | None,
    adapt: bool,
    network: Path | None,
    region: tuple[int, int, int, int] | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find the nuclei in IMAGES: files, folders, or a slide with --region.

    Each image gives NAME.labels.png (every nucleus its number), NAME.geojson (opens in QuPath), NAME.csv (size, place, stains) and
    NAME.overlay.png. What fails is listed in OUT/failures.csv and does not stop the rest (exit status 3).

    \b
    pathencoder nuclei tile.png --out nuclei --mpp 0.25
    pathencoder nuclei ki67/ --out nuclei --adapt
    pathencoder nuclei slide.svs --region 20000 15000 4000 4000 --out nuclei
    """
    from pathencoder.nuclei.instances import tools
    from pathencoder.nuclei.weights import load_network
    from pathencoder.slides.files import make_folder

    tools()
    pictures = find_pictures(images, region)
    make_folder(out)
    wish = Wish(out, mpp, stain)
    chosen = _adapt(pictures, wish, seed) if adapt else load_network(network)
    outcomes = [_try(p, wish, chosen, number, len(pictures)) for number, p in enumerate(pictures, 1)]
    raise Failed(_report(outcomes, out, as_json=as_json))


def find_pictures(images: Sequence[Path], region: tuple[int, int, int, int] | None) -> list[Picture]:
    """The images in files and folders, each with a name of its own. Label maps and overlays of an earlier run are left out of folders."""
    from pathencoder.images import list_images

    files: list[Path] = []
    for path in dict.fromkeys(images):
        files += [p for p in list_images(path) if not p.stem.endswith((".labels", ".overlay"))] if path.is_dir() else [path]
    counts = Counter(f.stem for f in files)
    names = [f.stem if counts[f.stem] == 1 else f"{f.resolve().parent.name}-{f.name.replace('.', '-')}" for f in files]
    if len(set(names)) < len(names):
        doubled = next(n for n, c in Counter(names).items() if c > 1)
        raise click.UsageError(f"two images would both be called {doubled!r}: give them to two commands, with an --out each")
    return [Picture(f, n, region) for f, n in zip(files, names, strict=True)]


def _read(picture: Picture, mpp: float | None) -> tuple[NDArray[np.uint8], float | None]:
    """The pixels of a picture, and micrometres per pixel where they are known."""
    from pathencoder.cli.inputs import is_slide
    from pathencoder.errors import SlideError
    from pathencoder.images import open_image

    if picture.region is None and not is_slide(picture.file):
        return open_image(picture.file), mpp
    if picture.region is None:
        raise SlideError(f"{picture.file} is a slide: say which part of it with --region X Y WIDTH HEIGHT (level-0 pixels)")
    from pathencoder.slides.reader import open_slide

    x, y, width, height = picture.region
    slide = open_slide(picture.file)
    try:
        return slide.read(x, y, 0, width, height), slide.mpp(mpp).value
    finally:
        slide.close()


def _adapt(pictures: list[Picture], wish: Wish, seed: int) -> NucleiNetwork:
    """Train on the pictures' own nuclei, label-free, and keep the network; pictures that cannot be used are said and left out."""
    from pathencoder.cli.meter import Meter
    from pathencoder.errors import ConfigError, PathEncoderError
    from pathencoder.nuclei.recipe import train
    from pathencoder.nuclei.segment import prepare
    from pathencoder.nuclei.weights import save_network

    maps = []
    for picture in pictures:
        try:
            image, mpp = _read(picture, wish.mpp)
            prepared = prepare(image, mpp=mpp, stain=wish.stain)
            maps += [prepared.calibration.maps(prepared.working)] if prepared.calibration else []
        except PathEncoderError as error:
            click.echo(f"{picture.file} is left out of --adapt: {error}", err=True)
    if not maps:
        raise ConfigError("--adapt needs at least one image with tissue that can be read")
    with Meter(f"adapting to {plural(len(maps), 'image')}", unit="step") as meter:
        network = train(maps, seed=seed, progress=meter)
    save_network(wish.out / _ADAPTED, network, {"adapted_to": [p.name for p in pictures], "seed": seed})
    click.echo(f"adapted network kept in {wish.out / _ADAPTED}: use it again with --network", err=True)
    return network


def _try(picture: Picture, wish: Wish, network: NucleiNetwork, number: int, count: int) -> Outcome:
    from pathencoder.errors import PathEncoderError, StoreError
    from pathencoder.slides.store import Failure
    from pathencoder.slides.work import Outcome

    click.echo(f"[{number}/{count}] {picture.file}", err=True)
    try:
        return _one(picture, wish, network)
    except StoreError:
        raise
    except PathEncoderError as error:
        return Outcome(picture.file, "failed", failures=[Failure("", str(error), type(error).__name__)])


def _one(picture: Picture, wish: Wish, network: NucleiNetwork) -> Outcome:
    from pathencoder.nuclei.outputs import write_all
    from pathencoder.nuclei.segment import segment_nuclei
    from pathencoder.slides.work import Outcome

    began = time.monotonic()
    image, mpp = _read(picture, wish.mpp)
    nuclei = segment_nuclei(image, mpp=mpp, stain=wish.stain, network=network)
    x, y = picture.region[:2] if picture.region else (0, 0)
    files = write_all(nuclei, image, wish.out, picture.name, offset=(x, y))
    notes = [*_findings(nuclei), *nuclei.notes]
    return Outcome(picture.file, "done", file=files[0], rows=len(nuclei), seconds=time.monotonic() - began, notes=notes)


def _findings(nuclei: Nuclei) -> list[str]:
    names = {"he": "H&E", "ihc": "IHC"}
    found = [f"{names.get(nuclei.stain.stain, nuclei.stain.stain)} ({nuclei.stain.confidence:.0%} sure)"]
    if nuclei.positive_fraction is not None:
        found.append(f"{nuclei.positive_fraction:.1%} positive")
    return found


def _report(outcomes: list[Outcome], out: Path, *, as_json: bool) -> int:
    """Print what became of every image; the exit status."""
    from pathencoder.cli.report import exit_status, write_failures

    status, failures = exit_status(outcomes), write_failures(out, outcomes)
    if as_json:
        echo_json({"out": str(out), "status": status, "failures": failures, "inputs": [_as_json(o) for o in outcomes]})
        return status
    for outcome in outcomes:
        click.echo("\n    ".join([_line(outcome), *(f.reason for f in outcome.failures)]))
    good = sum(o.fate == "done" for o in outcomes)
    click.echo(f"{plural(good, 'image')} of {len(outcomes)} done, {sum(o.rows for o in outcomes):,} nuclei, in {out}")
    if failures:
        click.echo(f"What failed, and why: {failures}")
    return status


def _line(outcome: Outcome) -> str:
    if outcome.fate == "failed":
        return f"{outcome.source}: failed"
    return ", ".join([f"{outcome.source}: {outcome.rows:,} nuclei", duration(outcome.seconds), *outcome.notes]) + f" -> {outcome.file}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    found = {"input": str(outcome.source), "fate": outcome.fate, "labels": outcome.file, "nuclei": outcome.rows, "notes": outcome.notes}
    return {**found, "failures": [{"error": f.kind, "reason": f.reason} for f in outcome.failures]}
