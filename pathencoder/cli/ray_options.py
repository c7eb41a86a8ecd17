"""`--ray`, `--ray-cores` and what `--device` means with them."""

from __future__ import annotations

from dataclasses import dataclass

from pathencoder.cluster.session import check_address
from pathencoder.errors import ConfigError

_DEVICES: dict[str, bool | None] = {"auto": None, "cpu": False, "cuda": True}


@dataclass(frozen=True)
class RayOptions:
    """Where and on what to work.

    Attributes:
        address: "local", "auto" or HOST:PORT.
        cores: Of each worker without GPU.
        gpus: Use GPUs; None: where there are any.
        names: Of the encoders, as the user gave them; empty: the default.
        revision: Of the encoder, as the user gave it.
    """

    address: str
    cores: int
    gpus: bool | None = None
    names: tuple[str, ...] = ()
    revision: str | None = None


def ray_options(
    address: str | None, cores: int, *, device: str, names: tuple[str, ...], revision: str | None
) -> RayOptions | None:
    """The options of the command line; None without --ray.

    Raises:
        ConfigError: The address or the device cannot be used.
        MissingExtra: Ray is not installed.
    """
    if address is None:
        return None
    check_address(address)
    if device not in _DEVICES:
        raise ConfigError(
            f"--device {device} does not go with --ray, which gives each worker a GPU of its own:"
            " auto, cpu or cuda"
        )
    return RayOptions(address, cores, _DEVICES[device], names, revision)
