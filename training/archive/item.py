"""A slide as its source lists it: the only thing that a source hands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One slide of a source. No field holds a person's name, birth date or sex.

    Attributes:
        src: The source, as `open_source` reads it.
        source_id: The slide's name in the source, which stays the same.
        file: Its place below the folder of a download, with slashes; safe to write to.
        patient: As the source has it: it is made a code before anything is written or logged.
        published: The patient's name is one that the source publishes.
        stain_class: Where the source states it; "" where not.
        stain: As the source states it.
        organ: Likewise.
        scanner: Likewise.
        mpp: Likewise, in micrometres per pixel.
        width: In pixels.
        height: In pixels.
        licence: Likewise.
        size: Bytes; None where the source does not say.
        modified: The latest change of its files in nanoseconds, where they lie here.
        checksum: md5:..., etag:...; "" where the source states none.
        release: The source's data release.
        problem: Why the slide cannot be used, in words.
        path: Where it lies on this machine; None for a remote one.
        described: Text in which a stain may be named, beside the file's name; not kept.
    """

    src: str
    source_id: str
    file: str
    patient: str = field(default="", repr=False)
    published: bool = False
    stain_class: str = ""
    stain: str = ""
    organ: str = ""
    scanner: str = ""
    mpp: float | None = None
    width: int | None = None
    height: int | None = None
    licence: str = ""
    size: int | None = None
    modified: int = 0
    checksum: str = ""
    release: str = ""
    problem: str = ""
    path: Path | None = None
    described: str = field(default="", repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the slide."""
        return self.src, self.source_id
