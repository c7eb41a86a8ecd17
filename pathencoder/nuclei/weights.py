"""The nuclei network on disk: config.json (format, layers and input) and model.safetensors."""

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
from pathencoder.state_dicts import Differences, shapes_of
from pathencoder.walk import expanded

BUNDLED = "nuclei-fcn"
FORMAT = "pathencoder-nuclei"
VERSION = 1


def load_network(folder: str | os.PathLike[str] | None = None) -> NucleiNetwork:
    """Load a network.

    Args:
        folder: From `save_network`. None: the bundled network, which is loaded once.

    Returns:
        The network in eval mode.

    Raises:
        ConfigError: The folder holds no nuclei network.
        IncompatibleWeights: The weights do not fit config.json.
    """
    return _bundled() if folder is None else _read(expanded(folder))


def save_network(folder: str | Path, network: NucleiNetwork, about: dict[str, Any]) -> None:
    """Write config.json and model.safetensors.

    Args:
        folder: Is created.
        network: The network.
        about: How it was trained and on what, as JSON values.

    Raises:
        StoreError: The folder cannot be written.
    """
    from safetensors.torch import save

    from pathencoder.files import make_folder, whole_file

    target = make_folder(expanded(folder))
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with whole_file(target / "model.safetensors") as path:
        path.write_bytes(save(state))
    with whole_file(target / "config.json") as path:
        path.write_text(json.dumps(_config(network, about), indent=2) + "\n", encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any] | None:
    """The `about` of `save_network` of a folder; None without one."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))["about"]
        return about if isinstance(about, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(network: NucleiNetwork) -> str:
    """Hash of the values of a network: 16 hexadecimal digits of SHA-256."""
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
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise IncompatibleWeights(
            f"{path} cannot be read: {error}. Train or copy the network again"
        ) from error
    if differences := Differences(shapes_of(weights), shapes_of(network.state_dict())):
        raise IncompatibleWeights(
            f"{path} does not fit its config.json: {differences}. Train or copy the network again"
        )
    network.load_state_dict(weights)
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
