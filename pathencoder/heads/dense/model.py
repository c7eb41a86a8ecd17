"""A fitted dense head: an encoder, a decoder and a task; images to objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pathencoder.arrays import Pixels
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.heads.dense import augment, tune
from pathencoder.heads.dense.network import DenseNetwork
from pathencoder.heads.dense.resize import interpolated, resized_labels
from pathencoder.heads.dense.smp import OURS, SmpDecoder
from pathencoder.heads.dense.tasks import Task, Truth
from pathencoder.heads.dense.train import Training, train
from pathencoder.heads.dense.weights import own_copy
from pathencoder.heads.encoder_record import weights_digest
from pathencoder.nuclei.adapt.checkpoint import Checkpoint, key_of
from pathencoder.nuclei.instances import enlarge
from pathencoder.nuclei.maps import CHANNELS, WORKING_MPP, calibrate

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """An image and what is in it.

    Attributes:
        image: uint8 [H, W, 3].
        truth: A label map [H, W] (of objects: 0 is background, every other number one object; of
            classes: their numbers from 0, `targets.IGNORED` where none is known), or points [N, 2]:
            x and y, the centre of the first pixel at 0.
        mpp: Micrometres per pixel of the image.
        stain: "he" or "ihc", for the stain maps.
        group: Patient, slide or case; "" where unknown: the image is a group of its own.
        classes: Of points: the number of the class of each [N], -1 where it has none. None: the
            points have no classes.
        names: Names of the classes, by number.
    """

    image: Pixels
    truth: Truth
    mpp: float
    stain: str = "he"
    group: str = ""
    classes: NDArray[np.integer] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DenseModel:
    """A fitted network and how to read it.

    Attributes:
        network: The encoder and the decoder.
        task: What it looks for.
        mpp: Micrometres per pixel at which images are read.
        sizes: What was measured on the training images, for the task.
        stain_maps: Whether it takes the stain maps of the label-free nuclei beside the image.
    """

    network: DenseNetwork
    task: Task
    mpp: float
    sizes: dict[str, float]
    stain_maps: bool

    def probabilities(
        self, image: Pixels, mpp: float, *, stain: str = "he", views: int = 1
    ) -> Floats:
        """Maps of an image at the scale of the model.

        Args:
            image: uint8 [H, W, 3].
            mpp: Its micrometres per pixel.
            stain: "he" or "ihc".
            views: Views that are averaged: 1, 4 or 8.

        Returns:
            float32 [outputs, h, w], 0..1; of classes, their sum is 1.
        """
        read = resampled(image, mpp / self.mpp)
        planes = _planes(read, self.mpp, stain, stain_maps=self.stain_maps)
        return self.network.read(planes, views=views, activation=self.task.activation)

    def predict(
        self, image: Pixels, mpp: float, *, stain: str = "he", views: int = 1
    ) -> NDArray[np.generic]:
        """The objects of an image.

        Args:
            image: uint8 [H, W, 3].
            mpp: Its micrometres per pixel.
            stain: "he" or "ihc".
            views: Views that are averaged: 1, 4 or 8.

        Returns:
            Labels int32 [H, W]: objects numbered from 1, or classes from 0; or points float64
            [N, 3]: x and y in pixels of the image, the centre of the first at 0, and the height of
            the peak.
        """
        maps = self.probabilities(image, mpp, stain=stain, views=views)
        return self.objects(maps, image.shape[:2], mpp)

    def objects(self, maps: Floats, shape: tuple[int, ...], mpp: float) -> NDArray[np.generic]:
        """The objects of maps that `probabilities` gave, in pixels of the image of that shape."""
        height, width = shape[:2]
        if self.task.semantic:
            return self.task.objects(interpolated(maps, (height, width)), self.mpp, self.sizes)
        found = self.task.objects(maps, self.mpp, self.sizes)
        if self.task.points:
            wide, high = size_at(shape, mpp / self.mpp)
            moved: NDArray[np.float64] = found * [width / wide, height / high, 1] - [0.5, 0.5, 0]
            # the last pixel of the map may reach beyond the image
            moved[:, :2] = moved[:, :2].clip(-0.5, [width - 0.5, height - 0.5])
            return moved
        labels = found.astype(np.int32)
        if labels.shape == (height, width):
            return labels
        # outlines run where the interpolated maps do: neither along the edges of large pixels, nor
        # to one side, as the nearest of an even number of small ones is
        axes = zip(labels.shape, (height, width), strict=True)
        centres = [(np.arange(n) + 0.5) * read / n - 0.5 for read, n in axes]
        return enlarge(labels, maps[0] - np.float32(0.5), *centres)


def fit(
    encoder: Encoder,
    task: Task,
    images: Sequence[Labelled],
    how: Training,
    *,
    mpp: float | None = None,
    stain_maps: bool = False,
    decoder: str = OURS,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    checkpoint: Path | None = None,
) -> DenseModel:
    """Fit a dense head; the encoder that is given is not changed.

    A task that chooses its sizes by a score (points) is not trained on one image in six, and
    chooses them there.

    Args:
        encoder: Where training begins; a rate of the encoder trains a copy of it.
        task: What to look for.
        images: The training images.
        how: Settings of the training.
        mpp: Micrometres per pixel at which images are read. None: the task's.
        stain_maps: Give the stain maps of the label-free nuclei beside the image.
        decoder: One of `smp.DECODERS`.
        progress: Called with the step and its loss.
        checkpoint: A file for the state of the training: the same call on the same images goes on
            where it was interrupted.

    Returns:
        The fitted model.

    Raises:
        ConfigError: There is no image, its labels do not fit it, the encoder is not float32, the
            decoder does not fit it, or the loss is no number.
        MissingExtra: The decoder is one of a package that is not installed.
    """
    if not images:
        raise ConfigError("no image to fit on: give at least one with its labels")
    if task.semantic and not task.classes:
        raise ConfigError(f"the task {task.name!r} needs its classes: see tasks.task_of")
    scale = mpp or task.mpp
    network = new_network(
        own_copy(encoder), task, stain_maps=stain_maps, seed=how.seed, decoder=decoder
    )
    truths = [_truth_at(x, scale, task) for x in images]
    planes = []
    for x, truth in zip(images, truths, strict=True):
        read = resampled(x.image, x.mpp / scale)
        target = task.targets(truth, read.shape[:2], scale)
        planes.append(
            torch.cat(
                [_planes(read, scale, x.stain, stain_maps=stain_maps), torch.from_numpy(target)]
            )
        )
    held = tune.held_out([x.group for x in images], how.seed) if task.tune else []
    fitted = [p for i, p in enumerate(planes) if i not in held]
    kept = None if checkpoint is None else _kept_in(checkpoint, network, fitted, task, how)
    train(network, fitted, task.loss, how, progress, kept)
    sizes = task.sizes(truths, scale)
    if task.tune and held:
        maps = [network.read(planes[i][: 3 + network.decoder.shape.extra]) for i in held]
        sizes |= task.tune(maps, [truths[i] for i in held], scale, sizes)
    return DenseModel(network, task, scale, sizes, stain_maps)


def new_network(
    encoder: Encoder, task: Task, *, stain_maps: bool, seed: int = 0, decoder: str = OURS
) -> DenseNetwork:
    """The network of a task on an encoder, with a new decoder of random weights."""
    extra = CHANNELS if stain_maps else 0
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        return DenseNetwork(encoder, task.outputs, extra=extra, stride=task.stride, decoder=decoder)


def _kept_in(
    file: Path, network: DenseNetwork, planes: Sequence[Tensor], task: Task, how: Training
) -> Checkpoint:
    """The checkpoint of a training; the key holds all that its weights depend on."""
    recipe = f"{task.name} {task.classes} {how} {weights_digest(network.encoder)}"
    if isinstance(network.decoder, SmpDecoder):
        recipe += f" {type(network.decoder.pyramid).__name__}"
    return Checkpoint(file, key_of([p.numpy() for p in planes], recipe, how.seed))


def resampled(image: Pixels, factor: float) -> Pixels:
    """An image resampled by a factor of its side; area-weighted where it shrinks."""
    size = size_at(image.shape, factor)
    if size == image.shape[1::-1]:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def size_at(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Width and height of an image [H, W, ...] that was resampled by a factor of its side."""
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def _truth_at(x: Labelled, mpp: float, task: Task) -> Truth:
    size = size_at(x.image.shape, x.mpp / mpp)
    if task.points:
        factors = np.divide(size, x.image.shape[1::-1])
        return (np.asarray(x.truth, np.float64).reshape(-1, 2) + 0.5) * factors
    if x.truth.shape != x.image.shape[:2]:
        raise ConfigError(
            f"the labels have {x.truth.shape}, their image {x.image.shape[:2]}: they must have the"
            " same height and width"
        )
    return resized_labels(x.truth.astype(np.int32), size)


def _planes(image: Pixels, mpp: float, stain: str, *, stain_maps: bool) -> Tensor:
    if not stain_maps:
        return augment.as_planes(image)
    small = resampled(image, mpp / WORKING_MPP)  # thresholds are measured at their own scale
    return augment.as_planes(image, calibrate(small, stain).maps(image))
