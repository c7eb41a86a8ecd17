"""Encoder: a network with its spec, which turns images into embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder import outputs
from pathencoder import runtime as runtimes
from pathencoder import stream as streams
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError
from pathencoder.images import Images, Key, survey
from pathencoder.module import EncoderModule, InputFormat
from pathencoder.outputs import Features
from pathencoder.pretrained.load import Loaded, load
from pathencoder.pretrained.load import Options as LoadOptions
from pathencoder.pretrained.mixin import SavingMixin
from pathencoder.pretrained.origin import Origin
from pathencoder.runtime import BatchSize, Rows, RuntimeName
from pathencoder.runtimes.choose import Choice, choose
from pathencoder.runtimes.runner import runner
from pathencoder.spec import EncoderSpec, summary
from pathencoder.stream import Found, OnError, Options, Progress, Result, Scales, Settings
from pathencoder.transforms import Transform


class Encoder(SavingMixin, nn.Module):
    """A pathology encoder.

    `encode` takes images in any form, `forward` takes normalised tensors. A new encoder is in eval
    mode.

    Attributes:
        network: The timm network with its weights, as `network.create(spec)` builds it.
        spec: The description of the encoder.
        origin: What it was loaded from; None for one that was built from its parts.
    """

    def __init__(self, network: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        if not isinstance(network, nn.Module) or not isinstance(spec, EncoderSpec):
            raise ConfigError(
                "an Encoder is made of a network and an EncoderSpec, found"
                f" {type(network).__name__}, {type(spec).__name__}"
            )
        self.network = network
        self.spec = spec
        self.origin: Origin | None = None
        self.eval()

    def forward(self, x: Tensor) -> Features:
        """Run the network once; differentiable.

        Args:
            x: Normalised float [N, 3, H, W]. H and W may differ from the default input size.

        Returns:
            The features of the N images.

        Raises:
            ImageError: Another shape or dtype, or sides that the patch size does not divide.
        """
        return outputs.read(self.network, self.spec, x)

    @property
    def folder(self) -> Path | None:
        """The folder with reference, card and licence that it was loaded from; None without one."""
        return self.origin.folder if self.origin is not None else None

    @property
    def transform(self) -> Transform:
        """The preprocessing: any one image to normalised float32 [3, S, S].

        Picklable, for the workers of a DataLoader.
        """
        return Transform(self.spec)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.spec.dim

    @property
    def num_features(self) -> int:
        """Length of the embedding, under timm's name."""
        return self.spec.dim

    def __repr__(self) -> str:
        mode = "train" if self.training else "eval"
        lines = [
            *summary(self.spec, sum(p.numel() for p in self.parameters())),
            f"{self.precision_used()} on {self.device}, {mode} mode",
        ]
        return "Encoder(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    def as_module(
        self, *, output: str = "embedding", input_format: InputFormat = "normalised"
    ) -> EncoderModule:
        """The encoder as a module that returns one tensor, for the code of others.

        It can be pickled, copied, traced and exported, and works in nn.Sequential, DataParallel and
        with hooks on `network`.

        Args:
            output: As for `encode`, or "tokens": the patch tokens (the positions of the map for a
                CNN), without class token and registers.
            input_format: "normalised": float [N, 3, H, W], as `transform` returns it. "uint8_nhwc"
                or "uint8_nchw": uint8 [N, H, W, 3] or [N, 3, H, W], which the module normalises and
                does not resize.

        Returns:
            The module; it shares the encoder's weights.

        Raises:
            ConfigError: An argument is unknown, or the network does not have the output.
        """
        return EncoderModule(self.network, self.spec, output=output, input_format=input_format)

    def precision_used(self, precision: str = "auto") -> str:
        """The precision that torch uses for `encode(precision=...)`: "fp32", "bf16" or "fp16".

        Raises:
            ConfigError: The precision is unknown, or these weights cannot run at it.
        """
        return runtimes.precision_used(precision, self.dtype)

    def runtime_used(self, settings: Settings) -> Choice:
        """The runtime and precision that compute the rows of `encode`; errors as there."""
        return choose(self.network, self.spec, self.origin, settings)

    def pyramid(
        self, x: Tensor, indices: Sequence[int] | None = None
    ) -> tuple[list[Tensor], list[int]]:
        """Feature maps of several stages; differentiable.

        Args:
            x: Normalised float [N, 3, H, W].
            indices: The maps of a CNN (one per resolution) or the blocks of a transformer. None:
                all maps of a CNN, the last four blocks of a transformer.

        Returns:
            Feature maps [N, C, h, w], and their strides in pixels.

        Raises:
            ConfigError: The network has no stages, or not one of `indices`.
            ImageError: `x` has another shape or dtype.
        """
        return outputs.pyramid(self.network, self.spec, x, indices)

    @overload
    def encode(
        self, images: Images, *, return_keys: Literal[False] = False, **options: Unpack[Options]
    ) -> Rows: ...

    @overload
    def encode(
        self, images: Images, *, return_keys: Literal[True], **options: Unpack[Options]
    ) -> tuple[Rows, list[Key]]: ...

    def encode(
        self,
        images: Images,
        *,
        mpp: Scales = None,
        output: str = "embedding",
        views: int = 1,
        batch_size: BatchSize = "auto",
        precision: str = "auto",
        runtime: RuntimeName = "auto",
        workers: int | None = None,
        progress: Progress = "auto",
        on_error: OnError = "raise",
        return_keys: bool = False,
    ) -> Rows | tuple[Rows, list[Key]]:
        """Embed images in any form.

        Args:
            images: PIL image; numpy uint8 or float 0..1 (HxW, HxWx3, HxWx4, NxHxWx3); torch uint8
                or float 0..1 ([3, H, W], [N, 3, H, W]); path; folder (recursive, the order of
                `list_images`); a list, iterator or generator of any of these.
            mpp: Micrometres per pixel of the images, one number or one per image: they are
                resampled to the encoder's, then cropped around the centre or padded with white,
                never stretched. None: resized whole, as the encoder's authors do.
            output: "embedding" (what the authors recommend), "cls", "mean", "cls_mean", "multi"
                (last four blocks) or "dense".
            views: 4 averages over the quarter turns of each image (maps are turned back first), 8
                also over those of its mirror image, in 4 or 8 times the time.
            batch_size: Images decoded together, and the maximum of one forward pass. The rows do
                not depend on it, but for last digits on a GPU, which chooses kernels by shape.
            precision: "auto" is the dtype of the weights (fp32 unless they were loaded in another)
                on every machine. "bf16" and "fp16" are faster where the hardware supports them,
                and change the rows, as "int8" does, of which there must be an exported file.
            runtime: "auto" takes the fastest that is installed and gives the same rows to about
                1e-6: "onnx" or "openvino" on a CPU where the encoder has an exported file, else
                "torch". Or the file or folder that `pathencoder export` wrote.
            workers: Decoding threads. None: one per core, at most 16.
            progress: "auto" (a bar on a terminal), True or False.
            on_error: "raise" stops at the first bad image; "nan" makes its row NaN and logs why.
            return_keys: Also return the keys: the path relative to the given folder, else the
                index.

        Returns:
            numpy float32 [N, D], in order; for "dense" [N, C, h, w]. With return_keys a pair of
            these rows and the list of keys.

        Raises:
            ImageError: An image cannot be read; the message names it.
            ConfigError: The settings do not fit.
            MissingExtra: The runtime is not installed.
        """
        found, total = self._run(
            images,
            mpp=mpp,
            output=output,
            views=views,
            batch_size=batch_size,
            precision=precision,
            runtime=runtime,
            workers=workers,
            progress=progress,
            on_error=on_error,
        )
        keys: list[Key] = []
        table = streams.Table(total)
        with contextlib.closing(found):
            for result in found:
                keys.append(result.key)
                table.append(result.row)
        rows = table.finish(self.spec.dim)
        return (rows, keys) if return_keys else rows

    def stream(self, images: Images, **options: Unpack[Options]) -> Iterator[tuple[Key, Rows]]:
        """Embed images lazily, in constant memory.

        Args:
            images: As for `encode`. An array that an iterator yields must not be overwritten
                afterwards: it may not have been resized yet.
            **options: The options of `encode` except `return_keys`, with the same defaults.

        Yields:
            (key, float32 row), in order.

        Raises:
            ImageError: An image cannot be read; the message names it.
            ConfigError: The settings do not fit.
        """
        found, _ = self._run(images, **options)
        return ((r.key, r.row) for r in found)

    def results(
        self, images: Images, *, mpp: Scales = None, settings: Settings | None = None
    ) -> Iterator[Result]:
        """Embed images lazily: one Result per image, with its error if it cannot be read.

        `images` and `mpp` are those of `encode`; ConfigError is raised as there.
        """
        return self._results(images, mpp, settings or Settings())[0]

    def runner(self, settings: Settings) -> runtimes.Runner:
        """One readout as `results` runs it on each view, uint8 [N, S, S, 3]; errors as there."""
        return runner(self.network, self.spec, self.origin, settings)

    def _run(
        self,
        images: Images,
        *,
        mpp: Scales = None,
        progress: Progress = "auto",
        on_error: OnError = "raise",
        **settings: Any,
    ) -> tuple[Found, int | None]:
        found, total = self._results(images, mpp, Settings(**settings))
        return streams.watched(streams.judged(found, on_error), total, progress), total

    def _results(self, images: Images, mpp: Scales, settings: Settings) -> tuple[Found, int | None]:
        workers = runtimes.pick_workers(settings.workers)
        group = runtimes.pick_batch(settings.batch_size, self.device)
        items, total = survey(images)
        runner = self.runner(settings)
        found = streams.results(
            streams.with_scales(items, mpp, total),
            self.transform,
            runner,
            group=group,
            workers=workers,
            views=settings.views,
            pace=settings.pace,
        )
        return found, total

    def _loaded(self) -> Loaded:
        return Loaded(self.network, self.spec, self.origin)

    def _embed(self, network: nn.Module, tile: Pixels) -> Rows:
        same = self if network is self.network else Encoder(network, self.spec)
        embedding: Rows = same.encode(tile, progress=False)[0]
        return embedding

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        map_location: str | torch.device | None = None,
        strict: bool = True,
        **options: Unpack[LoadOptions],
    ) -> Encoder:
        """Load an encoder: `load_encoder`, but for `pretrained`, with huggingface_hub's arguments.

        Args:
            pretrained_model_name_or_path: `name` of `load_encoder`.
            map_location: `device` of `load_encoder`, under huggingface_hub's name.
            strict: Accepted and not used: weights that do not fit the network are always refused.
            **options: Those of `load_encoder`.

        Raises:
            PathEncoderError: As for `load_encoder`.
        """
        if map_location is not None:
            if "device" in options:
                raise ConfigError("map_location and device are the same setting: give one of them")
            options["device"] = map_location
        return load_encoder(pretrained_model_name_or_path, **options)


def load_encoder(
    name: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    device: str | torch.device | int = "auto",
    dtype: torch.dtype | str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    force_download: bool = False,
    pretrained: bool = True,
) -> Encoder:
    """Load an encoder: bundled, from a folder, from the catalogue, or from the Hub.

    Args:
        name: None (the bundled default, no network), a name of `list_encoders()`, a folder (one
            that exists or begins with . / ~), "owner/repo" or "hf-hub:owner/repo" in timm's format
            or pathencoder's, optionally with "@revision".
        revision: A branch, tag or commit of the repository.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: Of the parameters, also by name ("bf16", "fp16"). None: float32.
        token: As in huggingface_hub, as are the next three; its environment variables apply too.
        cache_dir: The cache of downloads.
        local_files_only: True: do not use the network.
        force_download: Download again what is in the cache.
        pretrained: False gives the same network with random weights.

    Returns:
        The encoder, in eval mode.

    Raises:
        UnknownEncoder: Nothing has that name.
        GatedEncoder: The publisher's terms have to be accepted first.
        OfflineError: The files are not on this machine and the Hub does not answer.
        ChecksumError: A file is not the one that was published.
        UnsafeWeights: The weights could run code.
        IncompatibleWeights: Weights and network do not fit each other.
        ConfigError: An argument, or the encoder's description, cannot be used.
        StoreError: The cache cannot be written.
    """
    wanted, target = runtimes.pick_dtype(dtype), runtimes.pick_device(device)
    loaded = load(
        name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        pretrained=pretrained,
        graph=target.type == "cpu" and wanted == torch.float32,
    )
    encoder = Encoder(loaded.network, loaded.spec)
    encoder.origin = loaded.origin
    encoder.to(device=target, dtype=wanted)
    if not networks.has_tokens(encoder.network):
        networks.order_for_convolutions(encoder.network)
    return encoder
