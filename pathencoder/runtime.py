"""Run a network: device, precision, batches, and running out of memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pathencoder import cores
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError
from pathencoder.walk import expanded
from pathencoder.wrapped import evaluating

log = logging.getLogger(__name__)

Rows: TypeAlias = npt.NDArray[np.float32]
BatchSize: TypeAlias = "int | Literal['auto']"

RuntimeName: TypeAlias = "str | os.PathLike[str]"

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
RUNTIMES = ("auto", "torch", "onnx", "openvino")
_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
}
_CPU_GROUP, _GPU_BATCH = 32, 128


def pick_device(name: str | torch.device | int = "auto") -> torch.device:
    """The device of that name; "auto" is the first available one of cuda, mps, cpu.

    Raises:
        ConfigError: The device is unknown or not available.
    """
    if str(name) != "auto":
        return _existing(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_devices(names: str) -> list[torch.device]:
    """The devices of a list: "cuda:0,cuda:1"; "cuda:all" is every GPU of NVIDIA or AMD.

    A device that is named twice is returned twice.

    Raises:
        ConfigError: A device is unknown or not available.
    """
    found: list[torch.device] = []
    for name in (part.strip() for part in names.split(",")):
        if name == "cuda:all":
            count = torch.cuda.device_count()
            if not count:
                raise ConfigError("device 'cuda:all': this machine has none. Use device='auto'")
            found += [torch.device("cuda", index) for index in range(count)]
        else:
            found.append(pick_device(name))
    return found


def _existing(name: str | torch.device | int) -> torch.device:
    try:
        wanted = f"cuda:{name}" if isinstance(name, int) and not isinstance(name, bool) else name
        device = torch.device(wanted)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device {name!r} is not known: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    if device.type == "meta":
        raise ConfigError(
            "device 'meta' holds no numbers: nothing can be encoded there. device='auto' picks an"
            " available one"
        )
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type
    )
    if count is not None and (device.index or 0) >= count:
        raise ConfigError(
            f"device {str(device)!r} is not available on this machine ({count} of that kind): use"
            " device='auto'"
        )
    return device


def pick_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """The dtype of the weights: a floating-point dtype, by torch's object or name; None is float32.

    Raises:
        ConfigError: The dtype is unknown or not a floating-point one.
    """
    if dtype is None:
        return torch.float32
    named = {
        **{name: kind for kind, name in _NAMES.items()},
        **{str(kind).removeprefix("torch."): kind for kind in _NAMES},
    }
    found = named.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _NAMES:
        raise ConfigError(f"dtype={dtype!r}: one of {', '.join(named)}, or torch's of that name")
    return found


def pick_workers(workers: int | None) -> int:
    """The number of decoding threads; None is one for each core of this process, at most 16.

    Raises:
        ConfigError: The number is less than one.
    """
    if workers is None:
        return min(cores.available(), 16)
    if not _is_count(workers):
        raise ConfigError(
            f"workers={workers!r}: a whole number of decoding threads from 1 on, or None for one"
            " per core"
        )
    return int(workers)


def pick_batch(batch_size: BatchSize, device: torch.device) -> int:
    """The number of images that are decoded together; "auto" depends on the device.

    Raises:
        ConfigError: The number is less than one.
    """
    if isinstance(batch_size, str) and batch_size == "auto":
        return _CPU_GROUP if device.type == "cpu" else _GPU_BATCH
    if not _is_count(batch_size):
        raise ConfigError(f"batch_size={batch_size!r}: a whole number from 1 on, or 'auto'")
    return int(batch_size)


def check_runtime(runtime: object) -> str | Path:
    """The runtime of a request: one of `RUNTIMES`, or the path of an exported file or its folder.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(runtime, str) and runtime in RUNTIMES:
        return runtime
    if isinstance(runtime, str | os.PathLike) and os.fspath(runtime):
        place = expanded(runtime)
        if place.exists():
            return place
    raise ConfigError(
        f"runtime={str(runtime)!r}: one of {', '.join(RUNTIMES)}, or an existing file or folder"
        " that `pathencoder export` wrote"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def precision_used(precision: str, dtype: torch.dtype) -> str:
    """The precision that is used for a request; it depends on neither machine nor images.

    Args:
        precision: "auto" (the dtype of the weights), "fp32", "bf16" or "fp16"; "int8" is refused.
        dtype: Of the weights. Weights in float32 also run in bf16 or fp16 (autocast); weights in
            another dtype run in that dtype only.

    Returns:
        "fp32", "bf16" or "fp16" ("fp64" for weights in float64).

    Raises:
        ConfigError: The precision is unknown, or these weights cannot run at it.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r}: one of {', '.join(PRECISIONS)}")
    if precision == "int8":
        raise ConfigError(
            "precision='int8': torch runs the encoder in fp32, bf16 or fp16. A file of int8 runs in"
            " another runtime: `pathencoder export --precision int8`"
        )
    own = _NAMES.get(dtype, str(dtype).removeprefix("torch."))
    if precision in ("auto", own):
        return own
    if dtype != torch.float32:
        raise ConfigError(
            f"precision={precision!r}, but the weights are {dtype}: load them with"
            " dtype=torch.float32"
        )
    return precision


def gains_from_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (NVIDIA: from compute capability 8.0 on).

    CPUs without such units run it at a quarter of fp32's speed.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


class Runner:
    """Runs one readout of a network over uint8 tiles.

    On a CPU a forward pass takes 2 to 8 images whatever `batch` says. That is the fastest
    (activations stay in cache). Kernels are chosen by shape: within that range the results were
    bitwise equal for every network tested, beyond it they differ by 1e-6.

    Args:
        network: Put in eval mode for the time of a call.
        readout: Normalised [N, 3, S, S] to [N, ...].
        normalise: uint8 [N, S, S, 3] to normalised [N, 3, S, S], on the device of the tiles.
        precision: As in `precision_used`; the attribute `precision` is the one that is used.
        batch: Largest number of images in one forward pass.
        alone: Whether one image is run alone. torch uses other kernels for it than for two.
    """

    def __init__(
        self,
        network: nn.Module,
        readout: Callable[[Tensor], Tensor],
        normalise: Callable[[Tensor], Tensor],
        *,
        precision: str = "auto",
        batch: int = _CPU_GROUP,
        alone: bool = False,
    ) -> None:
        first = next(network.parameters())
        self.network, self.readout, self.normalise = network, readout, normalise
        self.device, self.dtype = first.device, first.dtype
        self.batch = min(batch, _cpu_chunk()) if self.device.type == "cpu" else batch
        self.precision = precision_used(precision, self.dtype)
        self.alone = alone

    def __call__(self, pixels: Pixels) -> Tensor:
        """Run uint8 [N, S, S, 3] in batches, which are halved when memory runs out.

        Returns:
            float32 [N, ...] on the device.

        Raises:
            ConfigError: The memory does not suffice for one image.
        """
        parts: list[Tensor] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self.batch]
            try:
                parts.append(self._forward(part))
            except RuntimeError as error:
                self._halve(error)
            else:
                done += len(part)
        return torch.cat(parts)

    def _forward(self, pixels: Pixels) -> Tensor:
        count = len(pixels)
        if count == 1 and not self.alone:
            pixels = np.repeat(pixels, 2, axis=0)
        with torch.inference_mode(), evaluating(self.network), self._autocast():
            x = self.normalise(self._upload(pixels))
            return self.readout(x.to(self.dtype))[:count].float()

    def _upload(self, pixels: Pixels) -> Tensor:
        tensor = torch.from_numpy(pixels)
        return (
            tensor.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else tensor.to(self.device)
        )

    def _autocast(self) -> torch.autocast:
        """Autocast where float32 weights run at a lower precision; overrides the caller's."""
        reduced = _REDUCED.get(self.precision) if self.dtype == torch.float32 else None
        # Cached casts would be inference tensors and remain in the cache of a caller's autocast,
        # whose backward would then fail.
        return torch.autocast(
            self.device.type, reduced, enabled=reduced is not None, cache_enabled=False
        )

    def _halve(self, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.batch == 1:
            raise ConfigError(
                f"one image at a time does not fit into the memory of {self.device}:"
                " device='cpu' may"
            ) from error
        self.batch //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory on %s: continuing with batches of %d", self.device, self.batch)


def _cpu_chunk() -> int:
    return min(max(2 * torch.get_num_threads(), 4), 8)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that the memory does not suffice."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        t in text for t in ("out of memory", "can't allocate memory")
    )
