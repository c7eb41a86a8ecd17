"""One input of a command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pathencoder.remote.slides import RemoteSlide


@dataclass(frozen=True)
class Job:
    """The input of one output file.

    Attributes:
        source: The file or folder, as the user typed it.
        kind: "slide", "tiles" or "nothing" (`problem` says why).
        name: Name of its output, without suffix.
        images: Key and file of each image of "tiles".
        whole: The images are all of a folder: rows of images that no longer exist are removed.
        unread: Keys of files and folders in it that cannot be read now: rows of images there stay.
        problem: What is wrong with a "nothing".
        remote: The slide of a store, where `source` is its URL.
    """

    source: Path
    kind: str
    name: str = ""
    images: tuple[tuple[str, Path], ...] = ()
    whole: bool = True
    unread: tuple[str, ...] = ()
    problem: str = ""
    remote: RemoteSlide | None = None

    @property
    def folder(self) -> Path:
        """The folder that the keys of "tiles" are relative to."""
        return self.source.parent if self.is_one_image else self.source

    @property
    def is_one_image(self) -> bool:
        """Whether it is a single image, whose output is named after it."""
        return len(self.images) == 1 and self.images[0][1] == self.source
