"""Encoder: a network, its spec, and the way from any images to rows of numbers."""

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
from pathencoder.errors import ConfigError
from pathencoder.images import Images, Key, survey
from pathencoder.outputs import Features
from pathencoder.pretrained import save
from pathencoder.pretrained.load import Options as LoadOptions
from pathencoder.pretrained.load import load
from pathencoder.pretrained.origin import Origin
from pathencoder.runtime import BatchSize, Rows
from pathencoder.spec import EncoderSpec, summary
from pathencoder.stream import (
    Found,
    OnError,
    Options,
    Progress,
    Result,
    Scales,
    Settings,
    Table,
    judged,
    results,
    watched,
    with_scales,
)
from pathencoder.transforms import Transform


class Encoder(nn.Module):
    """A pathology encoder.

    `encode` takes images in any form, `forward` normalised tensors; in eval mode from the start.

    network: as `network.create(spec)` builds it, with its weights. spec: what is known of it.
    origin: what it was loaded from; None for one that was built here.
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
        """Normalised float [N, 3, H, W] -> Features; differentiable.

        H and W may differ from the default input size.

        Raises ImageError for another shape or dtype, or sides that the network's patches do not
        divide.
        """
        return outputs.read(self.network, self.spec, x)

    @property
    def folder(self) -> Path | None:
        """The folder that it was loaded from, with its reference, card and licence.

        None for one without.
        """
        return self.origin.folder if self.origin is not None else None

    @property
    def transform(self) -> Transform:
        """Any one image -> float32 [3, S, S], what the network was trained to see.

        Picklable, for a DataLoader's workers.
        """
        return Transform(self.spec)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return next(self.parameters()).dtype

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.spec.dim

    @property
    def num_features(self) -> int:
        """Length of the embedding, under the name that timm gives it."""
        return self.spec.dim

    def __repr__(self) -> str:
        mode = "train" if self.training else "eval"
        lines = [
            *summary(self.spec, sum(p.numel() for p in self.parameters())),
            f"{self.precision_used()} on {self.device}, {mode} mode",
        ]
        return "Encoder(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    def precision_used(self, precision: str = "auto") -> str:
        """What `encode(precision=...)` comes to for these weights: "fp32", "bf16" or "fp16".

        Raises:
            ConfigError: for a precision that is unknown or that these weights cannot run at.
        """
        return runtimes.precision_used(precision, self.dtype)

    def pyramid(
        self, x: Tensor, indices: Sequence[int] | None = None
    ) -> tuple[list[Tensor], list[int]]:
        """Normalised float [N, 3, H, W] -> feature maps [N, C, h, w] and their strides in pixels.

        differentiable.

        A CNN gives one map a resolution, a transformer those of the blocks in `indices` (default:
        the last four).
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
        batch_size: BatchSize = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        workers: int | None = None,
        progress: Progress = "auto",
        on_error: OnError = "raise",
        return_keys: bool = False,
    ) -> Rows | tuple[Rows, list[Key]]:
        """Images in any form to rows of numbers.

        Args:
            images: PIL image; numpy uint8 or float 0..1 (HxW, HxWx3, HxWx4, NxHxWx3); torch uint8
                or float 0..1 ([3, H, W], [N, 3, H, W]); path; folder (recursive, the order of
                `list_images`); a list, iterator or generator of any of these.
            mpp: Micrometres per pixel of the images, one number or one an image: they are
                resampled to the encoder's, then cropped around the centre or padded with white,
                never stretched. None: resized whole, as the encoder's authors do.
            output: "embedding" (what the authors recommend), "cls", "mean", "cls_mean", "multi"
                (last four blocks) or "dense".
            batch_size: Images decoded together, and the most of a forward pass. The rows do not
                depend on it: on a CPU they were the same to the last bit for every network tried;
                a GPU chooses kernels by shape, whose last digits may differ.
            precision: "auto" is the dtype of the weights, fp32 unless they were loaded in another,
                on every machine. "bf16" and "fp16" are faster where the hardware has them, and
                change the rows: `precision_used` says what a request comes to.
            runtime: "auto" or "torch".
            workers: Decoding threads. None: one a core, at most 16.
            progress: "auto" (a bar on a terminal), True or False.
            on_error: "raise" stops at the first bad image; "nan" makes its row NaN, logs why, and
                warns how many at the end.
            return_keys: Also give the keys: the path relative to the folder that was given, else
                the index.

        Returns:
            numpy float32 [N, D], in order; for "dense" [N, C, h, w]. With return_keys a pair of
            these rows and the list of keys.

        Raises:
            ImageError: For an image that cannot be read; it names the image.
            ConfigError: For settings that do not fit.
        """
        found, total = self._run(
            images,
            mpp=mpp,
            output=output,
            batch_size=batch_size,
            precision=precision,
            runtime=runtime,
            workers=workers,
            progress=progress,
            on_error=on_error,
        )
        keys: list[Key] = []
        table = Table(total)
        with contextlib.closing(found):
            for result in found:
                keys.append(result.key)
                table.append(result.row)
        rows = table.finish(self.spec.dim)
        return (rows, keys) if return_keys else rows

    def stream(self, images: Images, **options: Unpack[Options]) -> Iterator[tuple[Key, Rows]]:
        """`encode`, lazily: memory stays flat however long the input is.

        Args:
            images: As for `encode`. An array that an iterator yields must not be overwritten
                afterwards: it may wait to be resized.
            **options: Those of `encode`, with its defaults, but for `return_keys`.

        Yields:
            (key, float32 row), in order.

        Raises:
            ImageError: For an image that cannot be read; it names the image.
            ConfigError: For settings that do not fit.
        """
        found, _ = self._run(images, **options)
        return ((r.key, r.row) for r in found)

    def results(
        self, images: Images, *, mpp: Scales = None, settings: Settings | None = None
    ) -> Iterator[Result]:
        """`stream` for programs that go on whatever happens.

        Each image's key, row, and error if it was a bad one.
        """
        return self._results(images, mpp, settings or Settings())[0]

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
        return watched(judged(found, on_error), total, progress), total

    def _results(self, images: Images, mpp: Scales, settings: Settings) -> tuple[Found, int | None]:
        if settings.runtime not in runtimes.RUNTIMES:
            raise ConfigError(
                f"runtime={settings.runtime!r}: one of {', '.join(runtimes.RUNTIMES)}"
            )
        workers, group = (
            runtimes.pick_workers(settings.workers),
            runtimes.pick_batch(settings.batch_size, self.device),
        )
        items, total = survey(images)
        scaled = with_scales(items, mpp, total)
        return (
            results(
                scaled, self.transform, self._runner(settings, group), group=group, workers=workers
            ),
            total,
        )

    def _runner(self, settings: Settings, batch: int) -> runtimes.Runner:
        return runtimes.Runner(
            self.network,
            outputs.readout(self.network, self.spec, settings.output),
            self.transform.normalise,
            precision=settings.precision,
            batch=batch,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write the encoder's folder, which `load_encoder` and `from_pretrained` read.

        The encoder stays as it is.

        An unchanged encoder is written as it came: the same files with the same bytes. One whose
        weights, dtype or spec were changed gets a card that says what it was modified from and what
        was changed, a name of its own (NAME-modified, unless the spec has another), a new reference
        embedding, and none of its parent's figures; `spec.verified` is false.

        Args:
            save_directory: made if it is not there; files in it that are not an encoder's stay.

        Raises:
            StoreError: where it cannot be written.
            ConfigError, IncompatibleWeights: for a network with adapters, or another one than the
                spec describes.
        """
        save.save(self, save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload encoder",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hub, in place of an encoder that was there before.

        Args:
            repo_id: "owner/name", made if it is not there.
            commit_message, private, token, branch, create_pr: as in huggingface_hub.

        Returns:
            The address of the commit.

        Raises:
            StoreError: with the Hub's answer.
        """
        return save.push(
            self,
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], **options: Unpack[LoadOptions]
    ) -> Encoder:
        """`load_encoder` under the name that huggingface_hub's users look for.

        Args:
            name: A folder, a repository, or a catalogue name.
            **options: Those of `load_encoder`, but for `pretrained`.
        """
        return load_encoder(name, **options)


def load_encoder(
    name: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    device: str | torch.device | int = "auto",
    dtype: torch.dtype | str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    pretrained: bool = True,
) -> Encoder:
    """An encoder in eval mode: bundled, from a folder, from the catalogue, or from the Hub.

    Args:
        name: None (the bundled default, no network), a name of `list_encoders()`, a folder (one
            that exists or begins with . / ~), "owner/repo" or "hf-hub:owner/repo" in timm's format
            or ours, with "@revision" if wanted.
        revision: A branch, tag or commit of the repository.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: Of the parameters, also by name ("bf16", "fp16"). None: float32.
        token: As in huggingface_hub, as are the next two. Its environment variables (HF_TOKEN,
            HF_HOME, HF_HUB_OFFLINE and others) hold too.
        cache_dir: Where downloads are kept.
        local_files_only: True: never ask the network.
        pretrained: False gives the same network with random weights, to train from nothing.

    Returns:
        The encoder.

    Raises:
        UnknownEncoder: Nothing has that name.
        GatedEncoder: The publisher's terms have to be accepted first.
        OfflineError: The files are not here and the Hub does not answer.
        ChecksumError: A file is not the one that was published.
        UnsafeWeights: The weights could run code.
        IncompatibleWeights: Weights and network do not fit each other.
        ConfigError: An argument, or the encoder's description, cannot be used.
        StoreError: The cache cannot be written.
    """
    wanted, there = runtimes.pick_dtype(dtype), runtimes.pick_device(device)
    loaded = load(
        name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        pretrained=pretrained,
    )
    encoder = Encoder(loaded.network, loaded.spec)
    encoder.origin = loaded.origin
    encoder.to(device=there, dtype=wanted)
    if not networks.has_tokens(encoder.network):
        # 1.2 to 1.8 times as fast for convolutions on a CPU
        encoder.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder
