"""`pathencoder nuclei`: every nucleus of images and slide regions, as labels, outlines, a table and a picture."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import Failed, debug_option, duration, echo_json, json_option, plural
from pathencoder.cli.nuclei_pictures import Picture, find_pictures, read_picture, with_regions

if TYPE_CHECKING:
    from pathencoder.nuclei.network import NucleiNetwork
    from pathencoder.nuclei.segment import Nuclei
    from pathencoder.slides.work import Outcome
    from pathencoder.stain import Array

_ADAPTED = "network"  # the folder in --out that --adapt writes
_LEARNT_FROM = 64  # most pictures that --adapt looks at
_LEARNT_PIXELS = 4096  # the middle of each


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
    """Find the nuclei in IMAGES: files, folders, slides (region by region where there is tissue, or one --region).

    Each image gives NAME.labels.png (every nucleus its number), NAME.geojson (opens in QuPath), NAME.csv (size, place, stains) and
    NAME.overlay.png. A slide gives these for each of its regions, NAME_xX_yY. What fails is listed in OUT/failures.csv and does not stop
    the rest (exit status 3). The same command again leaves out what is done.

    \b
    pathencoder nuclei tile.png --out nuclei --mpp 0.25
    pathencoder nuclei ki67/ --out nuclei --adapt
    pathencoder nuclei slide.svs --region 20000 15000 4000 4000 --out nuclei
    """
    from pathencoder.nuclei.instances import tools
    from pathencoder.nuclei.weights import load_network
    from pathencoder.slides.files import make_folder

    tools()
    pictures = with_regions(find_pictures(images, region), mpp)
    make_folder(out)
    wish = Wish(out, mpp, stain)
    chosen = _adapt(pictures, wish, seed) if adapt else load_network(network)
    outcomes = [_try(p, wish, chosen, number, len(pictures)) for number, p in enumerate(pictures, 1)]
    raise Failed(_report(outcomes, out, as_json=as_json))


def _adapt(pictures: list[Picture], wish: Wish, seed: int) -> NucleiNetwork:
    """Train on the pictures' own nuclei, label-free, and keep the network; what the same command kept before is taken as it is."""
    from pathencoder.cli.meter import Meter
    from pathencoder.nuclei.recipe import train
    from pathencoder.nuclei.weights import load_network, read_about, save_network

    chosen = pictures[:: -(-len(pictures) // _LEARNT_FROM)]
    about = {"adapted_to": [_about(p, wish) for p in chosen], "seed": seed}
    if read_about(wish.out / _ADAPTED) == json.loads(json.dumps(about)):
        click.echo(f"adapted before: {wish.out / _ADAPTED}", err=True)
        return load_network(wish.out / _ADAPTED)
    maps = _maps_of(chosen, wish)
    with Meter(f"adapting to {plural(len(maps), 'image')}", unit="step") as meter:
        network = train(maps, seed=seed, progress=meter)
    save_network(wish.out / _ADAPTED, network, about)
    click.echo(f"adapted network kept in {wish.out / _ADAPTED}: use it again with --network", err=True)
    return network


def _maps_of(pictures: list[Picture], wish: Wish) -> list[Array]:
    """The stain maps of the middle of each picture; pictures that cannot be used are said and left out."""
    from pathencoder.errors import ConfigError, PathEncoderError
    from pathencoder.nuclei.segment import prepare

    maps = []
    for picture in pictures:
        try:
            image, mpp = read_picture(picture, wish.mpp)
            y, x = (max(0, (n - _LEARNT_PIXELS) // 2) for n in image.shape[:2])
            prepared = prepare(image[y : y + _LEARNT_PIXELS, x : x + _LEARNT_PIXELS], mpp=mpp, stain=wish.stain)
            maps += [prepared.calibration.maps(prepared.working)] if prepared.calibration else []
        except PathEncoderError as error:
            click.echo(f"{picture} is left out of --adapt: {error}", err=True)
    if not maps:
        raise ConfigError("--adapt needs at least one image with tissue that can be read")
    return maps


def _about(picture: Picture, wish: Wish) -> dict[str, Any]:
    """What a picture's results depend on beside the network: the same again means the same results."""
    import pathencoder

    found = picture.file.stat() if picture.file.exists() else None
    source = [str(picture.file.resolve()), *((found.st_size, found.st_mtime_ns) if found else ())]
    asked = {"mpp": wish.mpp, "stain": wish.stain, "region": picture.region, "core": picture.core}
    return {"source": source, **asked, "version": pathencoder.__version__}


def _try(picture: Picture, wish: Wish, network: NucleiNetwork, number: int, count: int) -> Outcome:
    from pathencoder.errors import PathEncoderError, StoreError
    from pathencoder.nuclei.weights import digest
    from pathencoder.slides.store import Failure
    from pathencoder.slides.work import Outcome

    about = {**_about(picture, wish), "network": digest(network)}
    before = _before(picture, wish, about)
    if before:
        return before
    click.echo(f"[{number}/{count}] {picture}", err=True)
    try:
        return _one(picture, wish, network, about)
    except StoreError:
        raise
    except PathEncoderError as error:
        return Outcome(Path(str(picture)), "failed", failures=[Failure("", str(error), type(error).__name__)])


def _before(picture: Picture, wish: Wish, about: dict[str, Any]) -> Outcome | None:
    """The outcome of an earlier run with the same image, network and settings, whose files are all there."""
    from pathencoder.nuclei.outputs import labels_file, read_stamp
    from pathencoder.slides.work import Outcome

    stamp = read_stamp(wish.out, picture.name)
    kept = json.loads(stamp) if stamp else {}
    if kept.get("about") != json.loads(json.dumps(about)):
        return None
    return Outcome(Path(str(picture)), "before", file=labels_file(wish.out, picture.name), rows=kept["nuclei"], notes=kept["notes"])


def _one(picture: Picture, wish: Wish, network: NucleiNetwork, about: dict[str, Any]) -> Outcome:
    from pathencoder.nuclei.outputs import write_all
    from pathencoder.nuclei.segment import segment_nuclei
    from pathencoder.slides.work import Outcome

    began = time.monotonic()
    image, mpp = read_picture(picture, wish.mpp)
    nuclei = segment_nuclei(image, mpp=mpp, stain=wish.stain, network=network)
    x, y = picture.region[:2] if picture.region else (0, 0)
    if picture.core:
        left, top, width, height = picture.core
        nuclei = nuclei.within((left - x, top - y, left - x + width, top - y + height))
    notes = [*_findings(nuclei), *nuclei.notes]
    stamp = json.dumps({"about": about, "nuclei": len(nuclei), "notes": notes})
    files = write_all(nuclei, image, wish.out, picture.name, offset=(x, y), stamp=stamp)
    return Outcome(Path(str(picture)), "done", file=files[0], rows=len(nuclei), seconds=time.monotonic() - began, notes=notes)


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
    good = sum(o.fate in ("done", "before") for o in outcomes)
    click.echo(f"{plural(good, 'image')} of {len(outcomes)} done, {sum(o.rows for o in outcomes):,} nuclei, in {out}")
    if failures:
        click.echo(f"What failed, and why: {failures}")
    return status


def _line(outcome: Outcome) -> str:
    if outcome.fate == "failed":
        return f"{outcome.source}: failed"
    took = "done before" if outcome.fate == "before" else duration(outcome.seconds)
    return ", ".join([f"{outcome.source}: {outcome.rows:,} nuclei", took, *outcome.notes]) + f" -> {outcome.file}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    found = {"input": str(outcome.source), "fate": outcome.fate, "labels": outcome.file, "nuclei": outcome.rows, "notes": outcome.notes}
    return {**found, "failures": [{"error": f.kind, "reason": f.reason} for f in outcome.failures]}
