"""`pathencoder doctor`: versions, devices, caches, bundled weights and speed of this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pathencoder import cores
from pathencoder._version import __version__
from pathencoder.cli.common import Failed, debug_option, device_option, echo_json, json_option, load

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "huggingface-hub",
    "safetensors",
    "numpy",
    "pillow",
    "h5py",
    "click",
    "tqdm",
    "filelock",
)
_EXTRAS = {
    "wsi": ("openslide-python", "openslide-bin", "tifffile"),
    "fastslide": ("fastslide",),
    "remote": ("obstore",),
    "tiff": ("tifffile", "imagecodecs"),
    "zarr": ("zarr",),
    "nuclei": ("scikit-image",),
    "heads": ("scikit-learn",),
    "lora": ("peft", "scikit-learn"),
}
_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


@click.command(short_help="Check this machine.")
@click.option(
    "--slide", type=click.Path(path_type=Path), help="Also measure how fast this slide is read."
)
@click.option("--speed/--no-speed", default=True, help="Measure the encoder.", show_default=True)
@device_option
@json_option
@debug_option
def command(*, slide: Path | None, speed: bool, device: str, as_json: bool) -> None:
    """Report versions, devices, OpenSlide and caches, check the bundled weights, measure speed.

    Exit status 1 if something is broken.

    \b
    pathencoder doctor
    pathencoder doctor --slide scan.svs
    """
    problems: list[str] = []
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "extras": _extras,
        "devices": _devices,
        "openslide": _openslide,
        "hub": _hub,
        "bundled weights": lambda: _weights(problems),
    }
    if speed:
        sections["speed"] = lambda: _speed(device)
    if slide is not None:
        sections["slide"] = lambda: _reading(slide)
    found: dict[str, Any] = {}
    for title, look in sections.items():
        found[title] = _safely(title, look, problems)
        if not as_json:
            _show(title, found[title])
    if as_json:
        echo_json({**found, "problems": problems})
    else:
        click.echo(
            "\n".join(["", *(f"PROBLEM: {p}" for p in problems)])
            if problems
            else "\nNo problem found."
        )
    raise Failed(1 if problems else 0)


def _safely(title: str, look: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    """The facts of one section; a section that fails is a problem, and the others follow."""
    try:
        return look()
    except Exception as error:
        problems.append(f"{title}: {error}" if str(error) else f"{title}: {type(error).__name__}")
        return {"failed": str(error) or type(error).__name__}


def _show(title: str, facts: dict[str, Any]) -> None:
    click.echo(f"{title}")
    for name, value in facts.items():
        click.echo(f"  {name.ljust(22)} {value}")


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, Any]:
    system = {
        "pathencoder": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    return {**system, **{p: _version_of(p) or "MISSING" for p in _PACKAGES}}


def _extras() -> dict[str, Any]:
    return {
        extra: ", ".join(f"{p} {_version_of(p) or 'not installed'}" for p in packages)
        for extra, packages in _EXTRAS.items()
    }


def _devices() -> dict[str, Any]:
    import torch

    from pathencoder import compat
    from pathencoder.runtime import gains_from_bf16, pick_device

    compat.import_timm()
    device = pick_device("auto")
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "chosen": str(device),
        "cuda": ", ".join(cuda) or "none",
        "mps": "yes" if torch.backends.mps.is_available() else "no",
        "cpu": (
            f"{cores.available()} cores, {torch.get_num_threads()} threads,"
            f" {torch.backends.cpu.get_cpu_capability()}"
        ),
        "bf16": (
            "in hardware; used on request (precision='bf16')"
            if gains_from_bf16(device)
            else "not in hardware: slower than fp32"
        ),
        "torchvision operators": (
            "its own" if _torchvision_whole() else "do not match this torch; added by pathencoder"
        ),
    }


def _torchvision_whole() -> bool:
    import torch

    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"))


def _openslide() -> dict[str, Any]:
    if importlib.util.find_spec("openslide") is None:
        return {"library": "not installed: pip install 'pathencoder[wsi]' to read slides"}
    import openslide

    return {"library": openslide.__library_version__, "python": openslide.__version__}


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants, get_token

    cache = Path(constants.HF_HUB_CACHE)
    place = next((p for p in (cache, *cache.parents) if p.exists()), cache)
    return {
        "cache": (
            f"{cache}"
            f" ({'writable' if os.access(place, os.W_OK) else 'read-only'}"
            f"{'' if cache.exists() else ', does not exist yet'})"
        ),
        "token": "found" if get_token() else "none (only gated encoders need one)",
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _weights(problems: list[str]) -> dict[str, Any]:
    from pathencoder.errors import PathEncoderError
    from pathencoder.pretrained import catalogue, locate

    found: dict[str, Any] = {}
    for name in catalogue.bundled():
        try:
            locate.locate(name, local_files_only=True)  # compares the checksum
        except PathEncoderError as error:
            problems.append(str(error))
            found[name] = "BROKEN"
        else:
            found[name] = (
                "whole" if catalogue.catalogue()[name].sha256 else "there (no checksum on record)"
            )
    if not found:
        problems.append("no bundled weights: install pathencoder again")
    return found


def _speed(device: str) -> dict[str, Any]:
    import numpy as np

    encoder = load(None, device=device)
    size = encoder.spec.input_size
    tiles = np.random.default_rng(0).integers(0, 255, (64, size, size, 3), np.uint8)
    encoder.encode(tiles[:8], progress=False)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < 2:
        done += len(encoder.encode(tiles, progress=False))
    return {
        encoder.spec.name: (
            f"{done / (time.perf_counter() - started):.0f} tiles/s of {size} px on {encoder.device}"
        )
    }


def _reading(path: Path) -> dict[str, Any]:
    from pathencoder.errors import MissingMpp
    from pathencoder.slides.reader import open_slide
    from pathencoder.slides.tissue import find_tissue

    slide = open_slide(path)
    try:
        scale, said = 0.5, "not stated: give --mpp"
        try:
            mpp = slide.mpp()
            scale, said = mpp.value, f"{mpp.value:.4g} ({mpp.source})"
        except MissingMpp as error:
            said = str(error)
        started = time.perf_counter()
        tissue = find_tissue(slide, scale)
        looked = time.perf_counter() - started
        return {
            "size": (
                f"{slide.size[0]} x {slide.size[1]} px, {len(slide.downsamples)} levels,"
                f" {slide.vendor}"
            ),
            "mpp": said,
            "tissue": f"{100 * tissue.mask.mean():.1f} % of the slide, found in {looked:.1f} s",
            "reading": _read_speed(slide),
        }
    finally:
        slide.close()


def _read_speed(slide: Any) -> str:
    """Read regions of 224 px at level 0 in rows, as encoding does, for two seconds."""
    from pathencoder.errors import SlideError

    x, y, width, height = slide.bounds
    places = [(i, j) for j in range(y, y + height, 224) for i in range(x, x + width, 224)]
    started = time.perf_counter()
    good = bad = 0
    for at in places:
        if time.perf_counter() - started > 2:
            break
        try:
            slide.read(*at, 0, 224, 224)
            good += 1
        except SlideError:
            bad += 1
    rate = (good + bad) / (time.perf_counter() - started)
    return f"{rate:.0f} regions/s of 224 px with one thread" + (
        f"; {bad} of {good + bad} DAMAGED" if bad else ""
    )
