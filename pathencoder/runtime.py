"""How a network is run: on which device, at what precision, in what batches, and what happens when memory runs out."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError

log = logging.getLogger(__name__)

Rows: TypeAlias = npt.NDArray[np.float32]
BatchSize: TypeAlias = "int | Literal['auto']"

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
RUNTIMES = ("auto", "torch")
AGREEMENT = 0.999  # cosine with fp32 that a lower precision must reach to be chosen by itself
_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_GROUP, _GPU_BATCH = 32, 128


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps, cpu that is there. Raises ConfigError for one that is not."""
    if str(name) != "auto":
        return _existing(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _existing(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {str(name)!r} is not known: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    there = torch.cuda.is_available() if device.type == "cuda" else torch.backends.mps.is_available()
    if device.type in ("cuda", "mps") and not there:
        raise ConfigError(f"device {str(device)!r} is not there: device='auto' takes what is")
    return device


def pick_workers(workers: int | None) -> int:
    """Decoding threads: as many as asked for, else one a core and at most 16."""
    if workers is None:
        return min(os.cpu_count() or 1, 16)
    if workers < 1:
        raise ConfigError(f"workers={workers}: at least one thread has to decode")
    return workers


def pick_batch(batch_size: BatchSize, device: torch.device) -> int:
    """Images that are decoded together: as many as asked for, else what suits the device. Raises ConfigError for less than one."""
    if batch_size == "auto":
        return _CPU_GROUP if device.type == "cpu" else _GPU_BATCH
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: a whole number from 1 on, or 'auto'")
    return int(batch_size)


def gains_from_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively. CPUs without such units run it at a quarter of fp32's speed."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, q, lambda: False)() for q in questions)


class Runner:
    """Runs one readout of a network over uint8 tiles.

    network: put in eval mode for the time of a call. readout: normalised [N, 3, S, S] -> Tensor [N, ...].
    normalise: uint8 [N, S, S, 3] -> normalised, on the tiles' device. batch: the most images of one forward pass.

    On a CPU a forward pass takes 2 to 8 images whatever `batch` says. That is the fastest (activations stay in cache), and kernels
    are chosen by shape: within that range they gave the same bits for every network tried, beyond it they differ by 1e-6.
    """

    def __init__(
        self,
        network: nn.Module,
        readout: Callable[[Tensor], Tensor],
        normalise: Callable[[Tensor], Tensor],
        *,
        input_size: int,
        precision: str = "auto",
        batch: int = _CPU_GROUP,
    ) -> None:
        first = next(network.parameters())
        self.network, self.readout, self.normalise = network, readout, normalise
        self.device, self.dtype = first.device, first.dtype
        self.batch = min(batch, _cpu_chunk()) if self.device.type == "cpu" else batch
        self.precision = self._settle(precision, input_size)

    def __call__(self, pixels: Pixels) -> Tensor:
        """uint8 [N, S, S, 3] -> float32 [N, ...] on the device. Out of memory: the batch is halved and the work goes on."""
        parts: list[Tensor] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self.batch]
            try:
                parts.append(self._forward(part, self.precision))
            except RuntimeError as error:
                self._halve(error)
            else:
                done += len(part)
        return torch.cat(parts)

    def _forward(self, pixels: Pixels, precision: str) -> Tensor:
        count = len(pixels)
        if count == 1:  # a lone image takes other kernels than two
            pixels = np.repeat(pixels, 2, axis=0)
        with torch.inference_mode(), _evaluating(self.network), self._autocast(precision):
            x = self.normalise(self._upload(pixels))
            return self.readout(x if precision in _REDUCED else x.to(self.dtype))[:count].float()

    def _upload(self, pixels: Pixels) -> Tensor:
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)

    def _autocast(self, precision: str) -> contextlib.AbstractContextManager[object]:
        if precision not in _REDUCED:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, _REDUCED[precision])

    def _halve(self, error: RuntimeError) -> None:
        if not _is_out_of_memory(error):
            raise error
        if self.batch == 1:
            raise ConfigError(f"one image at a time does not fit into the memory of {self.device}: device='cpu' may") from error
        self.batch //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory on %s: going on with batches of %d", self.device, self.batch)

    def _settle(self, precision: str, input_size: int) -> str:
        """The precision to run at: "fp32", "bf16", "fp16", or "own" for weights that were loaded in another dtype."""
        if precision not in PRECISIONS:
            raise ConfigError(f"precision={precision!r}: one of {', '.join(PRECISIONS)}")
        if self.dtype != torch.float32:
            if precision not in ("auto", {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype)):
                raise ConfigError(f"precision={precision!r}, but the weights are {self.dtype}: load them with dtype=torch.float32")
            return "own"
        if precision != "auto":
            return precision
        return "bf16" if gains_from_bf16(self.device) and self._agrees("bf16", input_size) else "fp32"

    def _agrees(self, precision: str, input_size: int) -> bool:
        """Compared on fixed pictures, so that the choice is the same for every folder and every slide."""
        pixels = _probe(input_size)
        full, reduced = (self._forward(pixels, p).flatten(1) for p in ("fp32", precision))
        worst = float(cosine_similarity(full, reduced).min())
        log.info("%s on %s: lowest cosine with fp32 %.5f", precision, self.device, worst)
        return worst >= AGREEMENT


def _cpu_chunk() -> int:
    return min(max(2 * torch.get_num_threads(), 4), 8)


def _probe(size: int) -> Pixels:
    """Four smooth pictures in the colours of haematoxylin and eosin: uint8 [4, S, S, 3]."""
    rng = np.random.default_rng(0)
    stains = np.array([[88, 66, 140], [226, 150, 190], [245, 240, 244]])
    coarse = stains[rng.integers(0, 3, (4, 28, 28))].astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse])


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards each module is in the mode that it was in."""
    training = [m for m in network.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(t in text for t in ("out of memory", "can't allocate memory"))
