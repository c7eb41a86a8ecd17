"""The nuclei network on disk: config.json (its format, sizes and input rule) and model.safetensors."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError, IncompatibleWeights
from pathencoder.nuclei.maps import CHANNELS, WORKING_MPP
from pathencoder.nuclei.network import NucleiNetwork, parameters

BUNDLED = "nuclei-fcn"
FORMAT = "pathencoder-nuclei"
VERSION = 1


def load_network(folder: str | os.PathLike[str] | None = None) -> NucleiNetwork:
    """The network of a folder in eval mode; None: the bundled one (kept for the next call).

    Raises ConfigError for a folder that holds no nuclei network, IncompatibleWeights for weights
    that do not fit.
    """
    return _bundled() if folder is None else _read(Path(folder))


def save_network(folder: str | Path, network: NucleiNetwork, about: dict[str, Any]) -> None:
    """Write config.json and model.safetensors.

    `about` (plain JSON values) says what it was trained on and how.
    """
    from safetensors.torch import save

    from pathencoder.files import make_folder, whole_file

    target = make_folder(Path(folder))
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with whole_file(target / "model.safetensors") as path:
        path.write_bytes(save(state))
    with whole_file(target / "config.json") as path:
        path.write_text(json.dumps(_config(network, about), indent=2) + "\n", encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any] | None:
    """What `save_network` recorded about the network of a folder; None where there is none."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))["about"]
        return about if isinstance(about, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(network: NucleiNetwork) -> str:
    """A name for a network's values: 16 hexadecimal digits of SHA-256."""
    found = hashlib.sha256()
    for value in network.state_dict().values():
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@functools.cache
def _bundled() -> NucleiNetwork:
    return _read(Path(str(resources.files("pathencoder"))) / "weights" / BUNDLED)


def _config(network: NucleiNetwork, about: dict[str, Any]) -> dict[str, Any]:
    layers = {"width": network.width, "inner": network.inner, "dilations": list(network.dilations)}
    rule = {"mpp": WORKING_MPP, "channels": CHANNELS, "maps": "otsu-normalised stain densities"}
    return {
        "format": FORMAT,
        "version": VERSION,
        "layers": layers,
        "input": rule,
        "parameters": parameters(network),
        "about": about,
    }


def _read(folder: Path) -> NucleiNetwork:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    layers = _layers(folder)
    network = NucleiNetwork(
        width=layers["width"], inner=layers["inner"], dilations=tuple(layers["dilations"])
    )
    try:
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise IncompatibleWeights(
            f"{folder / 'model.safetensors'} does not fit its config.json: {error}. Train or copy"
            " it again"
        ) from error
    return network.eval()


def _layers(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["version"] > VERSION:
            raise ConfigError(
                f"{path} is of format {config['format']} {config['version']}; this version reads"
                f" {FORMAT} {VERSION}"
            )
        layers: dict[str, Any] = config["layers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{folder} holds no nuclei network ({error!r}): give a folder that `pathencoder nuclei"
            " --adapt` wrote"
        ) from error
    return layers
