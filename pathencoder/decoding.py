"""Decode images in threads, in groups, into buffers that are used again."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError, PathEncoderError
from pathencoder.images import Item
from pathencoder.transforms import Transform
from pathencoder.views import turned


@dataclass(frozen=True)
class Group:
    """Images that are being decoded into a buffer, uint8 [views, group, S, S, 3]."""

    items: Sequence[Item]
    decoded: Sequence[Future[None]]
    buffer: Pixels


def decode_groups(
    items: Iterable[tuple[Item, float | None]],
    transform: Transform,
    pool: ThreadPoolExecutor,
    free: list[Pixels],
    size: int,
    ahead: int,
    views: int = 1,
) -> Iterator[Group]:
    """Decode images in groups.

    Args:
        items: Images with their micrometres per pixel.
        transform: The preprocessing, up to the uint8 image.
        pool: The decoding threads.
        free: Buffers that can be used again; the caller puts that of a group here when it is done
            with it.
        size: Images in a group.
        ahead: Groups that are decoded in advance.
        views: Views of each image.

    Yields:
        Groups whose images are being decoded.
    """
    side = transform.spec.input_size
    started: deque[Group] = deque()
    remaining = iter(items)
    while True:
        while len(started) <= ahead and (members := list(itertools.islice(remaining, size))):
            buffer = free.pop() if free else np.empty((views, size, side, side, 3), np.uint8)
            decoded = [
                pool.submit(_decode_into, buffer, i, item, scale, transform)
                for i, (item, scale) in enumerate(members)
            ]
            started.append(Group([item for item, _ in members], decoded, buffer))
        if not started:
            return
        yield started.popleft()


def _decode_into(
    buffer: Pixels, place: int, item: Item, mpp: float | None, transform: Transform
) -> None:
    try:
        pixels = item.load()
    except (PathEncoderError, MemoryError):
        raise
    # an unexpected error of a reader must not stop the other images
    except Exception as error:
        raise ImageError(
            f"{item.where}: cannot be decoded ({type(error).__name__}: {error})"
        ) from error
    # turned before it is resized: the views of a turned image are then exactly those of the image
    for view, of_view in enumerate(buffer):
        of_view[place] = transform.resize(turned(pixels, view), mpp)


def collect(group: Group) -> tuple[Pixels, list[ImageError | None]]:
    """Wait for a group.

    Returns:
        uint8 [views, N, S, S, 3], white where an image failed, and the errors.

    Raises:
        Exception: Any error of an image other than ImageError.
    """
    errors: list[ImageError | None] = [None] * len(group.items)
    for i, decoded in enumerate(group.decoded):
        try:
            decoded.result()
        except ImageError as error:
            errors[i] = _without_frames(error)
            group.buffer[:, i] = 255
    return group.buffer[:, : len(group.items)], errors


def _without_frames(error: ImageError) -> ImageError:
    """The error and its causes without tracebacks, which would keep the pixels in memory."""
    chain: BaseException | None = error
    while chain is not None:
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__
    return error
