"""Several devices: inputs are spread over them, each device with its own copy of the networks."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pathencoder.cli.common import load
from pathencoder.cli.course import Course
from pathencoder.cli.jobs import Ended, Loop
from pathencoder.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import torch

    from pathencoder.encoder import Encoder
    from pathencoder.stream import Settings as StreamSettings

T = TypeVar("T")
_NOTICED_SECONDS = 0.05  # until it is noticed that all lanes have ended


def load_lanes(
    names: Sequence[str],
    *,
    devices: str,
    settings: StreamSettings,
    revision: str | None = None,
) -> list[list[Encoder]]:
    """Load encoders on every device, to encode with them and nothing else.

    Args:
        names: Of the encoders; none: the default encoder.
        devices: As --device gives them.
        settings: How the networks are read and run.
        revision: On the Hub.

    Returns:
        For each device the encoders.

    Raises:
        PathEncoderError: A device is not available, or an encoder cannot be loaded.
    """
    wanted: Sequence[str | None] = names or [None]
    if "," not in devices and devices != "cuda:all":
        return [[_load(name, devices, settings, revision) for name in wanted]]
    from pathencoder.runtime import pick_devices

    first, *others = pick_devices(devices)
    loaded = [_load(name, str(first), settings, revision) for name in wanted]
    return [loaded, *([on_device(encoder, other) for encoder in loaded] for other in others)]


def _load(name: str | None, device: str, settings: StreamSettings, revision: str | None) -> Encoder:
    encoder = load(name, device=device, revision=revision)
    from pathencoder.folding import for_inference
    from pathencoder.outputs import stages_read
    from pathencoder.runtimes.unchanged import stand_in

    if encoder.runtime_used(settings).runtime == "torch":
        # nothing else reads the network: the weights before folding need not stay in memory
        loaded = encoder.network
        encoder.network = for_inference(loaded, settings.precision, stages_read(encoder.spec))
        stand_in(encoder.network, loaded, encoder.origin)
    return encoder


def folders_of(out: Path, encoders: Sequence[str]) -> list[Path]:
    """The folder for the files of each encoder: OUT, or OUT/ENCODER where there are several.

    Args:
        out: The output folder.
        encoders: Their names.

    Raises:
        ConfigError: Two have one name.
    """
    if len(encoders) == 1:
        return [out]
    folders = [out / name.replace("/", "_") for name in encoders]
    for folder, name in zip(folders, encoders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(
                f"two encoders have the name {name}: their files would have the same names. Encode"
                " them one after the other, each with its own --out"
            )
    return folders


def on_device(encoder: Encoder, device: torch.device) -> Encoder:
    """A copy of an encoder on another device."""
    return copy.deepcopy(encoder).to(device)


def run_lanes(loops: Sequence[Loop[T]], jobs: Sequence[T]) -> Ended:
    """Process jobs in several threads, in their order: each lane takes the next one.

    What is said of `Loop.run` holds: what ends one lane ends them all.

    Args:
        loops: One for each lane.
        jobs: The jobs.

    Returns:
        The outcome of every job, in the order of the jobs.
    """
    if len(loops) == 1:
        return loops[0].run(jobs)
    lanes = _Lanes(loops, jobs)
    threads = [threading.Thread(target=lanes.run, args=(lane,)) for lane in range(len(loops))]
    try:
        for thread in threads:
            thread.start()
        while not lanes.have_ended(len(threads)):
            time.sleep(_NOTICED_SECONDS)
    except KeyboardInterrupt as stop:
        lanes.stop(stop)
        # Thread.join takes a thread whose join was interrupted for ended (Python 3.11)
        while not lanes.have_ended():
            time.sleep(_NOTICED_SECONDS)
    return lanes.ended()


class _Lanes(Generic[T]):
    """The jobs that several threads share."""

    def __init__(self, loops: Sequence[Loop[T]], jobs: Sequence[T]) -> None:
        self._loops, self._jobs = loops, jobs
        self._course = Course(len(jobs), lanes=len(loops))
        self._lock = threading.Lock()
        self._next = self._begun = self._ended = 0
        self._outcomes = loops[0].begun(jobs)
        self._stopped_by: BaseException | None = None

    def run(self, lane: int) -> None:
        """Process jobs until there are no more, or all are to stop."""
        with self._lock:
            self._begun += 1
        try:
            while (number := self._take()) is not None:
                self._loops[lane].process(number, self._jobs, self._outcomes, self._course, lane)
        except BaseException as error:  # of this lane; what is unexpected is raised again
            self.stop(error)
        finally:
            with self._lock:
                self._ended += 1

    def have_ended(self, lanes: int | None = None) -> bool:
        """Whether so many lanes have ended; None: all that have begun."""
        with self._lock:
            return self._ended == (self._begun if lanes is None else lanes)

    def stop(self, error: BaseException) -> None:
        """Let all lanes end; the first error counts."""
        with self._lock:
            self._stopped_by = self._stopped_by or error
            self._course.stop.set()

    def ended(self) -> Ended:
        """The result, once all threads have ended."""
        try:
            if self._stopped_by is None:
                self._loops[0].come_back(self._jobs, self._outcomes, self._course)
        except (KeyboardInterrupt, StoreError) as error:
            self._stopped_by = error
        stop = self._stopped_by
        if stop is not None and not isinstance(stop, KeyboardInterrupt | StoreError):
            raise stop
        return Ended([one for of_job in self._outcomes for one in of_job], stop)

    def _take(self) -> int | None:
        with self._lock:
            if self._course.stop.is_set() or self._next == len(self._jobs):
                return None
            self._next += 1
            return self._next - 1
