"""Remote slides of a command: copied here one after the other, ahead of the encoder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import click

from pathencoder.errors import PathEncoderError
from pathencoder.features.identity import Origin, Stat
from pathencoder.remote.slides import RemoteSlide
from pathencoder.remote.staging import Scratch, Staged, Staging


class Input(Protocol):
    """An input of a command; `remote` is None where it is a file of this machine."""

    @property
    def remote(self) -> RemoteSlide | None:
        """The slide of a store."""


T = TypeVar("T", bound=Input)


@contextlib.contextmanager
def staging_of(
    jobs: Sequence[T], scratch: Scratch, needs: Callable[[T], bool]
) -> Iterator[Staging | None]:
    """The staging of the remote slides among the jobs; None where there are none.

    Args:
        jobs: All jobs, in the order in which they are done.
        scratch: Where the copies lie.
        needs: Whether a remote job must be copied here. Its errors are left to the job itself.
    """
    remote = {job.remote.url: job for job in jobs if job.remote is not None}
    if not remote:
        yield None
        return

    def needed(slide: RemoteSlide) -> bool:
        try:
            return needs(remote[slide.url])
        except PathEncoderError:
            return False

    slides = [job.remote for job in remote.values() if job.remote is not None]
    with Staging(slides, scratch=scratch, needed=needed) as staging:
        yield staging


def say_download(slide: RemoteSlide, staging: Staging) -> None:
    """Print that a slide has to be waited for, where it has."""
    if not staging.is_ready(slide):
        click.echo(f"{slide.url}: downloading {slide.size / 1e6:,.0f} MB", err=True)


@contextlib.contextmanager
def copied(slide: RemoteSlide, staging: Staging) -> Iterator[tuple[Staged, Origin]]:
    """The copy of a slide, and where it is from; errors name its URL, not the copy.

    Raises:
        SlideError: It could not be downloaded.
    """
    with staging.staged(slide) as staged:
        try:
            yield staged, origin_of(staged.slide)
        except PathEncoderError as error:
            here = os.fspath(staged.path)
            if here not in str(error):
                raise
            raise type(error)(str(error).replace(here, slide.url)) from error


def origin_of(slide: RemoteSlide) -> Origin:
    """A remote slide's place and version, as feature files hold them."""
    return Origin(slide.url, Stat(*slide.version))
