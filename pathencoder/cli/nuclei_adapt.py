"""`pathencoder nuclei --adapt`: train the network on the inputs, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder._version import __version__
from pathencoder.cli.common import plural
from pathencoder.cli.meter import Meter
from pathencoder.cli.nuclei_names import Identity
from pathencoder.cli.nuclei_pictures import Opened, Part, opened
from pathencoder.cli.nuclei_remote import local
from pathencoder.cli.nuclei_run import Asked
from pathencoder.cli.nuclei_sources import Source
from pathencoder.cli.remote_slides import staging_of
from pathencoder.errors import ConfigError, PathEncoderError, SlideError, StoreError
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.nuclei.network import NucleiNetwork
    from pathencoder.stain import Array

FOLDER = "network"  # in --out
CHECKPOINT = "network.partial"  # next to it, during training
_MOST = 64  # images and regions that are used at most
_PIXELS = 4096  # px on a side: the centre of each


def adapted_network(sources: Sequence[Source], asked: Asked, seed: int) -> NucleiNetwork:
    """Train on the nuclei of the inputs and save the network in OUT/network.

    A network that the same command saved before is loaded; another one is not replaced. An
    interrupted training resumes.

    Args:
        sources: Images and slides; at most 64 images and regions, evenly spaced, are used.
        asked: The settings.
        seed: Of all random numbers.

    Returns:
        The network.

    Raises:
        ConfigError: No input has tissue that can be read.
        StoreError: The network cannot be written, or OUT/network holds another one.
    """
    from pathencoder.nuclei.weights import load_network, read_about, save_network

    folder = asked.out / FOLDER
    about = _about(sources, asked, seed)
    if read_about(folder) == about:
        click.echo(f"adapted before: {printable(folder)}", err=True)
        return load_network(folder)
    _check_free(folder)
    maps = _maps_of(sources, asked)
    with Meter(f"adapting to {plural(len(maps), 'image')}", unit="step") as meter:
        network = _train(maps, seed, meter, asked.out / CHECKPOINT)
    save_network(folder, network, about)
    saved = f"adapted network saved in {printable(folder)}: use it again with --network"
    click.echo(saved, err=True)
    return network


def _check_free(folder: Path) -> None:
    """Raises StoreError where a folder holds a network, or an encoder."""
    if any((folder / name).exists() for name in ("config.json", "model.safetensors")):
        raise StoreError(
            f"{folder} holds another network, which is not replaced: choose another --out, or use"
            " it with --network"
        )


def _train(maps: list[Array], seed: int, meter: Meter, checkpoint: Path) -> NucleiNetwork:
    from pathencoder.nuclei.adapt.train import train

    return train(maps, seed=seed, progress=meter, checkpoint=checkpoint)


def _about(sources: Sequence[Source], asked: Asked, seed: int) -> dict[str, Any]:
    """What the network depends on, as JSON values."""
    real = [source for source in sources if source.kind != "nothing"]
    inputs = [
        {**identity, "mpp": source.mpp, "stain": source.stain}
        for source in real
        if (identity := _identity(source)) is not None
    ]
    regions = [list(region) for region in asked.regions]
    return {
        "adapted_to": inputs,
        "stain": asked.stain,
        "regions": regions,
        "seed": seed,
        "version": __version__,
    }


def _identity(source: Source) -> dict[str, Any] | None:
    """A file by its content: touched files are the same. A remote slide by its version there.

    None for one that cannot be read, which no network is adapted to.
    """
    if source.remote is not None:
        return {"path": str(source.path), "version": list(source.remote.version)}
    try:
        facts = Identity(source).facts
    except SlideError:
        return None
    return {"path": facts["path"], "content": facts["content"]}


def _maps_of(sources: Sequence[Source], asked: Asked) -> list[Array]:
    """The stain maps of some images and regions; inputs that fail are named and left out."""
    each = max(1, _MOST // len(sources))
    maps: list[Array] = []
    chosen = sources[:: -(-len(sources) // _MOST)]
    with staging_of(chosen, asked.scratch, lambda _: True) as staging:
        for source in chosen:
            try:
                with (
                    local(source, staging) as (here, _),
                    opened(here, asked.stain_of(here)) as image,
                ):
                    parts = image.parts(asked.regions).all
                    for part in parts[:: -(-len(parts) // each)] if parts else []:
                        maps += _maps(image, part, asked.stain_of(here))
            except (PathEncoderError, MemoryError) as error:
                click.echo(printable(f"{source.path} is left out of --adapt: {error}"), err=True)
    if not maps:
        raise ConfigError("--adapt needs at least one image with tissue that can be read")
    return maps


def _maps(image: Opened, part: Part, stain: str | None) -> list[Array]:
    from pathencoder.nuclei.prepare import prepare

    pixels = image.read(part)
    y, x = (max(0, (n - _PIXELS) // 2) for n in pixels.shape[:2])
    middle = pixels[y : y + _PIXELS, x : x + _PIXELS]
    prepared = prepare(middle, mpp=image.mpp, stain=stain, slide=image.calibration)
    return [prepared.calibration.maps(prepared.working)] if prepared.calibration else []
