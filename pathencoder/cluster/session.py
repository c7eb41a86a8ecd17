"""A session of Ray: on this machine for the time of a command, or on a cluster that runs already.

Ray is imported inside functions alone: it takes a second, and is an extra.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pathencoder.cores import available as own_cores
from pathencoder.errors import ConfigError, MissingExtra

_HOST_PORT = re.compile(r"[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")
_STORE_BYTES = 100 << 20  # for results, which are small; Ray's default is 30 % of the memory


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its name, and the cores and GPUs that Ray may use there."""

    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Share:
    """What one worker has for itself."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Plan:
    """How many workers a cluster holds.

    Attributes:
        workers: In all.
        on_one_node: The most on one machine, which share its disk and memory.
        share: Of each.
    """

    workers: int
    on_one_node: int
    share: Share


def check_address(address: str) -> None:
    """Refuse an address that cannot be used, before anything starts.

    Args:
        address: "local", "auto" or HOST:PORT.

    Raises:
        ConfigError: It is none of these.
        MissingExtra: Ray is not installed.
    """
    if address.startswith("ray://"):
        raise ConfigError(
            f"{address}: connections through Ray's client are not supported. Run the command on a"
            " machine of the cluster, with auto or HOST:PORT"
        )
    if address not in ("local", "auto") and not _HOST_PORT.fullmatch(address):
        raise ConfigError(
            f"{address!r} is no address of a Ray cluster: local, auto, or HOST:PORT as `ray start"
            " --head` prints it"
        )
    import_ray()


def import_ray() -> Any:
    """The module `ray`, without its statistics of use.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # also Ray's default to come
    try:
        import ray
    except ImportError as error:
        raise MissingExtra.of("ray", "work on a Ray cluster") from error
    return ray


@contextlib.contextmanager
def session(address: str, *, cores: int | None = None, logs: bool = False) -> Iterator[list[Node]]:
    """Connect to a cluster, or start one on this machine; a session that is open already is used.

    Args:
        address: "local" starts Ray on this machine and stops it at the end. "auto" or HOST:PORT is
            a cluster that runs already, of which this machine is a part.
        cores: Cores that a session on this machine uses. None: all that this process may use.
        logs: Show what Ray and its workers print.

    Yields:
        The machines of the cluster.

    Raises:
        ConfigError: The address cannot be used, or no cluster answers there.
        MissingExtra: Ray is not installed.
    """
    check_address(address)
    ray = import_ray()
    if ray.is_initialized():
        yield _nodes(ray)
        return
    options: dict[str, Any] = {"log_to_driver": logs, "configure_logging": False}
    if address == "local":
        options |= {
            "num_cpus": cores or own_cores(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    with _quiet(logs=logs), _connected(ray, address, options):
        yield _nodes(ray)


@contextlib.contextmanager
def _connected(ray: Any, address: str, options: dict[str, Any]) -> Iterator[None]:
    try:
        ray.init(address=address, **options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"no Ray session at {address!r} ({reason}). Check that `ray status` works on this"
            " machine; for a cluster that asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet(*, logs: bool) -> Iterator[None]:
    """Keep Ray's messages off the terminal: those of its logger, and those it prints itself."""
    import ray._private.worker as driver

    logger, switch = logging.getLogger("ray"), "_worker_logs_enabled"
    level, printed = logger.level, getattr(driver, switch, True)
    logger.setLevel(logging.INFO if logs else logging.ERROR)
    setattr(driver, switch, logs)  # it prints to standard output, and has no public switch
    try:
        yield
    finally:
        logger.setLevel(level)
        setattr(driver, switch, printed)


def share_out(nodes: Sequence[Node], *, jobs: int, cores: int, gpus: bool | None = None) -> Plan:
    """One worker for each GPU, or for each `cores` cores where no GPU is used.

    Args:
        nodes: The machines.
        jobs: There are never more workers than jobs.
        cores: Of a worker without GPU, fewer where no machine has as many.
        gpus: Use the GPUs; None: where there are any.

    Returns:
        The workers. Those on GPUs share the cores of their machine evenly.

    Raises:
        ConfigError: GPUs are wanted and there are none, or there are no cores either.
    """
    with_gpus = [node for node in nodes if node.gpus]
    if gpus and not with_gpus:
        raise ConfigError(f"no machine of the Ray cluster has a GPU ({_listed(nodes)})")
    if with_gpus and gpus is not False:
        share = Share(min(node.cpus // node.gpus for node in with_gpus), 1)
        counts = [node.gpus for node in with_gpus]
    else:
        share = Share(min(cores, max((node.cpus for node in nodes), default=0)))
        if not share.cpus:
            raise ConfigError(f"the Ray cluster has no cores to work on ({_listed(nodes)})")
        counts = [node.cpus // share.cpus for node in nodes]
    workers = min(sum(counts), max(jobs, 1))
    return Plan(workers, min(max(counts), workers), share)


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(f"{n.name}: {n.cpus} cores, {n.gpus} GPUs" for n in nodes) or "no machines"


def _nodes(ray: Any) -> list[Node]:
    return [
        Node(
            str(node["NodeManagerHostname"]),
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
