"""What the file of one slide states: scale, size, scanner, stain by its colours; its sha256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import MissingMpp, PathEncoderError
from pathencoder.features.identity import files_of
from pathencoder.slides.reader import Slide, open_slide

_BLOCK = 4 << 20
_LOOK_PX = 512  # longer side of the picture whose colours are looked at


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read from a slide's files.

    Attributes:
        size: Bytes of all its files.
        modified: Their latest change in nanoseconds.
        sha256: See `sha256_of`; "" where it was not asked for.
        mpp: Micrometres per pixel; None where the file states none.
        mpp_from: The property or tag that states it.
        scanner: The format, as the reader names it.
        width: In pixels.
        height: In pixels.
        stain_class: By its colours: he or ihc; "" where they do not decide or were not looked at.
        stain_confidence: Probability that it is right.
        looked: Whether the colours were looked at.
        problem: Why it cannot be used; "" where it can.
    """

    size: int
    modified: int
    sha256: str = ""
    mpp: float | None = None
    mpp_from: str = ""
    scanner: str = ""
    width: int | None = None
    height: int | None = None
    stain_class: str = ""
    stain_confidence: float | None = None
    looked: bool = False
    problem: str = ""


def measure(path: Path, size: int, modified: int, *, hashed: bool, look: bool) -> Facts:
    """Read what a slide states. A slide that cannot be read is a fact, too.

    Args:
        path: A file, or the folder of a DICOM slide.
        size: Bytes of its files.
        modified: Their latest change.
        hashed: Compute the sha256.
        look: Guess the stain by the colours of a small picture.

    Returns:
        The facts.
    """
    try:
        digest = sha256_of(path) if hashed else ""
    except OSError as error:
        return Facts(size, modified, problem=f"it cannot be read ({error.strerror or error})")
    try:
        slide = open_slide(path)
    except PathEncoderError as error:
        return Facts(size, modified, digest, problem=_short(error, path))
    try:
        return _facts(slide, size, modified, digest, look=look)
    finally:
        slide.close()


def sha256_of(path: Path) -> str:
    """The sha256 of a slide, in hexadecimal.

    Args:
        path: Of one file: that of its bytes. Of several files (MIRAX, DICOM): that of the lines
            "sha256  name", sorted by name, which `sha256sum * | sha256sum` prints.

    Raises:
        OSError: A file cannot be read.
    """
    files = files_of(path)
    if len(files) == 1 and files[0] == path:
        return _of_file(path)
    folder = path if path.is_dir() else path.parent
    lines = sorted((f.relative_to(folder).as_posix(), _of_file(f)) for f in files)
    return hashlib.sha256("".join(f"{d}  {name}\n" for name, d in lines).encode()).hexdigest()


def _of_file(file: Path) -> str:
    with file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, hashlib.sha256).hexdigest()


def _facts(slide: Slide, size: int, modified: int, digest: str, *, look: bool) -> Facts:
    mpp, source, problem = None, "", ""
    try:
        found = slide.mpp()
        mpp, source = found.value, found.source
    except MissingMpp as error:
        problem = f"no scale: {_short(error, slide.path).partition('. ')[0]}"
    stain, confidence = _colours(slide) if look else ("", None)
    return Facts(
        size=size,
        modified=modified,
        sha256=digest,
        mpp=mpp,
        mpp_from=source,
        scanner=slide.vendor,
        width=slide.size[0],
        height=slide.size[1],
        stain_class=stain,
        stain_confidence=confidence,
        looked=look,
        problem=problem,
    )


def _colours(slide: Slide) -> tuple[str, float | None]:
    """The stain by the colours of a small picture, where they decide, and how sure that is."""
    from pathencoder.slides.overview import thumbnail
    from pathencoder.stain import guess_stain

    longest = max(slide.bounds[2:])
    try:
        # a scale at which the longer side has _LOOK_PX pixels, whatever the slide states
        picture = thumbnail(slide, 1.0, target_mpp=max(1.0, longest / _LOOK_PX), most=_LOOK_PX)
    except PathEncoderError:
        return "", None
    guess = guess_stain(picture.image)
    if not guess.decided or guess.stain not in ("he", "ihc"):
        return "", None
    return guess.stain, round(guess.confidence, 2)


def _short(error: Exception, path: Path) -> str:
    """The first sentences of an error, without the path: the manifest names the file itself."""
    return str(error).replace(f"{path}: ", "").replace(str(path), "it").partition("\n")[0][:300]
