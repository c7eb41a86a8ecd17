"""What `pathencoder doctor` looks at besides speed: versions, extras, devices, caches, weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder import cores
from pathencoder._version import __version__
from pathencoder.cli.common import plural

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# what each extra is for; extras that are not named here are for developers
EXTRAS = {
    "wsi": "whole slides",
    "fastslide": "more slide formats: .czi, .vsi, .isyntax",
    "remote": "slides in object stores and on web servers",
    "tiff": "TIFFs of 16 bits and rare compressions",
    "nuclei": "nuclei segmentation",
    "heads": "fit and predict",
    "lora": "adapt with LoRA",
    "zarr": "features in Zarr folders",
    "onnx": "faster inference with ONNX Runtime",
    "openvino": "faster inference with OpenVINO",
    "export": "pathencoder export",
    "ray": "slides over a cluster",
    "archive": "python -m training.archive, in the repository",
    "training": "pretraining and evaluation, in the repository",
}
_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "PATHENCODER_CACHE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_LITTLE = 5e9  # bytes; the largest encoders of the catalogue are 4.5 GB
_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass
class Report:
    """What was found.

    Attributes:
        problems: What is broken, and what to do.
        advice: What is missing or slow, and what to do.
        numbers: Measured values by name, for programs.
    """

    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def versions(report: Report) -> dict[str, str]:
    """Versions of this package, of Python and of the core dependencies, with the oldest allowed."""
    found = {
        "pathencoder": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for need in _requirements(None):
        found[need.name] = _against(need, report, essential=True)
    if len(found) == 3:
        report.advice.append(
            "pathencoder is not installed as a package, so that the versions of its dependencies"
            " were not checked: pip install pathencoder"
        )
    return found


def extras(report: Report) -> dict[str, str]:
    """Which extras are installed; for the others the command that installs them."""
    found: dict[str, str] = {}
    for extra, purpose in EXTRAS.items():
        needs = list(_requirements(extra))
        if not needs:
            continue
        absent = [need.name for need in needs if _version_of(need.name) is None]
        if absent:
            found[extra] = f"not installed ({purpose}): pip install 'pathencoder[{extra}]'"
        else:
            found[extra] = ", ".join(
                f"{need.name} {_against(need, report, essential=False)}" for need in needs
            )
    return found


def _requirements(extra: str | None) -> Iterator[Requirement]:
    """The requirements of this package, or of one of its extras, as its metadata states them."""
    from packaging.requirements import Requirement  # huggingface-hub needs it too

    try:
        lines = importlib.metadata.requires("pathencoder") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for need in map(Requirement, lines):
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        if always if extra is None else _is_of(need, extra):
            yield need


def _is_of(need: Requirement, extra: str) -> bool:
    marker = need.marker
    return (
        marker is not None
        and marker.evaluate({"extra": extra})
        and not marker.evaluate({"extra": ""})
    )


def _against(need: Requirement, report: Report, *, essential: bool) -> str:
    """A package's version and the range that is supported; what does not fit is a problem."""
    version = _version_of(need.name)
    command = f"pip install '{need.name}{need.specifier}'"
    if version is None:
        if essential:
            report.problems.append(f"{need.name} is not installed: {command}")
        return f"MISSING: {command}"
    if need.specifier.contains(version, prereleases=True):
        return f"{version} (supported: {need.specifier})"
    report.problems.append(f"{need.name} {version} is not supported ({need.specifier}): {command}")
    return f"{version} NOT SUPPORTED: {command}"


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices(report: Report) -> dict[str, str]:
    """The device that `auto` takes, GPUs, cores and threads."""
    import torch

    from pathencoder import compat
    from pathencoder.runtime import gains_from_bf16, pick_device

    compat.import_timm()
    device = pick_device("auto")
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if not cuda and (_NVIDIA.exists() or shutil.which("nvidia-smi")):
        built = torch.version.cuda or "no CUDA"
        report.advice.append(
            f"this machine has a driver of NVIDIA, but torch {torch.__version__} (built with"
            f" {built}) finds no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or install the"
            " torch of pytorch.org for your CUDA version"
        )
    threads, available = torch.get_num_threads(), cores.available()
    if threads < available:
        why = "OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else "torch's settings"
        report.advice.append(
            f"torch uses {threads} of {available} cores ({why}): on a CPU, set"
            f" OMP_NUM_THREADS={available} to use all"
        )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # not on Windows
    if busy > 1.5 * available:
        report.advice.append(
            f"other programs keep this machine busy (load {busy:.1f} on {available} cores): speeds"
            " are lower than on an idle one"
        )
    return {
        "chosen": str(device),
        "cuda": ", ".join(cuda) or "none",
        "mps": "yes" if torch.backends.mps.is_available() else "no",
        "cpu": ", ".join(
            [
                plural(available, "core"),
                plural(threads, "thread"),
                torch.backends.cpu.get_cpu_capability(),
            ]
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


def openslide(report: Report) -> dict[str, str]:
    """The versions of OpenSlide; a library that cannot be loaded is a problem."""
    if importlib.util.find_spec("openslide") is None:
        return {"library": "not installed (whole slides): pip install 'pathencoder[wsi]'"}
    try:
        import openslide
    except (ImportError, OSError) as error:
        report.problems.append(
            f"openslide-python does not find the library of OpenSlide ({error}): pip install"
            " openslide-bin"
        )
        return {"library": "MISSING: pip install openslide-bin"}
    return {"library": openslide.__library_version__, "python": openslide.__version__}


def hub(report: Report) -> dict[str, str]:
    """Cache, token and network for encoders that are not bundled."""
    from huggingface_hub import constants, get_token

    from pathencoder.pretrained import reach

    found = {"cache": _folder(Path(constants.HF_HUB_CACHE), report)}
    token = bool(get_token())
    found["token"] = (
        "found" if token else "none (only gated encoders need one): hf auth login, or HF_TOKEN"
    )
    if constants.HF_HUB_OFFLINE:
        found["network"] = "not used (HF_HUB_OFFLINE): encoders load from the cache only"
    else:
        why = reach.unreachable(constants.ENDPOINT)
        found["network"] = (
            f"{constants.ENDPOINT} answers"
            if why is None
            else f"{constants.ENDPOINT} cannot be reached ({why}): only bundled encoders, and those"
            " in the cache, load"
        )
    return {**found, **{name: os.environ[name] for name in _VARIABLES if name in os.environ}}


def folders(report: Report) -> dict[str, str]:
    """The folders that commands write to, besides the outputs that are asked for."""
    from pathencoder.heads.cache import FeatureCache

    return {
        "features of fit": _folder(Path(FeatureCache.default().root), report),
        "copies of remote slides": _folder(Path(tempfile.gettempdir()), report),
    }


def _folder(folder: Path, report: Report) -> str:
    """A folder, whether it can be written, and the free space of its disk."""
    place = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    writable, free = os.access(place, os.W_OK), shutil.disk_usage(place).free
    if not writable:
        report.advice.append(
            f"{folder} cannot be written: choose another folder (HF_HOME, PATHENCODER_CACHE or"
            " TMPDIR), or change its permissions"
        )
    if free < _LITTLE:
        report.advice.append(
            f"{folder} has {free / 1e9:.1f} GB free; large encoders take up to 4.5 GB: free space,"
            " or choose another folder"
        )
    state = "writable" if writable else "READ-ONLY"
    yet = "" if folder.exists() else ", does not exist yet"
    return f"{folder} ({state}, {free / 1e9:.0f} GB free{yet})"


def weights(report: Report) -> dict[str, str]:
    """Whether the bundled weights are whole."""
    from pathencoder.errors import PathEncoderError
    from pathencoder.pretrained import catalogue, locate

    found: dict[str, str] = {}
    for name in catalogue.bundled():
        try:
            locate.locate(name, local_files_only=True)  # compares the checksum
        except PathEncoderError as error:
            report.problems.append(f"{error} (pip install --force-reinstall pathencoder)")
            found[name] = "BROKEN"
        else:
            spec = catalogue.catalogue()[name]
            version = f"version {spec.version}, " if spec.version else ""
            found[name] = f"{version}{'whole' if spec.sha256 else 'no checksum on record'}"
    if not found:
        report.problems.append("no bundled weights: pip install --force-reinstall pathencoder")
    return found
