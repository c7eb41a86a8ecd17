"""Whether an earlier run has encoded a slide: its file, its settings and its slide decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import SlideError
from pathencoder.features import finished, layouts
from pathencoder.features.continued import with_runtime_of
from pathencoder.features.finished import ANEW, check_provenance, refuse_lone_tensor
from pathencoder.features.identity import (
    Origin,
    SlideIdentity,
    earlier_content,
    identify_slide,
    place_of,
    slide_stat,
)
from pathencoder.features.job import Outcome
from pathencoder.features.provenance import Provenance, Settings, slide_provenance
from pathencoder.files import Mismatch

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def done_before(
    source: Path,
    file: Path,
    provenance: Provenance,
    settings: Settings,
    origin: Origin | None = None,
) -> Outcome | None:
    """The outcome of an earlier run that made this file from this slide.

    Returns:
        None where the file does not exist, is to be made anew, or lacks the quality of the tiles
        that is asked for (`parts` completes it).

    Raises:
        Mismatch: The file is of another slide, of other settings, or damaged; or, in the layout
            clam, its tensor exists without it.
    """
    if settings.overwrite:
        return None
    refuse_lone_tensor(file, settings.layout)
    if not file.exists():
        return None
    check_provenance(file, provenance, settings.layout)
    found = finished.read_facts(file)
    notes = check_slide(source, found.slide, file, origin)
    if settings.layout == "clam" and not layouts.tensor_path(file).exists():
        return None  # the second of its two files is missing
    if settings.qc and not found.has_quality:
        return None
    return Outcome(
        source,
        "before",
        file,
        found.count,
        failures=found.failures,
        notes=[*notes, *found.notes],
        encoder=provenance.encoder,
        reader=found.reader,
        mpp=found.mpp,
    )


def remote_done_before(
    encoder: Encoder, origin: Origin, file: Path, settings: Settings
) -> Outcome | None:
    """As `done_before`, of a remote slide that was not downloaded.

    Returns:
        None also where the file was made from another version or another place: the content
        decides.

    Raises:
        Mismatch: The file is of other settings, or damaged, or its tensor exists without it.
        ConfigError: The settings do not fit the encoder.
    """
    if settings.overwrite:
        return None
    refuse_lone_tensor(file, settings.layout)
    if not file.exists():
        return None
    provenance = with_runtime_of(file, slide_provenance(encoder, settings), settings)
    check_provenance(file, provenance, settings.layout)
    made_from = finished.read_facts(file).slide
    if (made_from.path, made_from.stat) != (origin.url, origin.stat):
        return None
    return done_before(file, file, provenance, settings, origin)


def check_slide(
    source: Path, made_from: SlideIdentity, file: Path, origin: Origin | None
) -> list[str]:
    """Refuse a file that was made from another slide.

    Args:
        source: The slide.
        made_from: The slide that the file was made from.
        file: The file.
        origin: Where a remote slide is from; `source` is its copy here.

    Returns:
        A note where the file was made from another path with the same content.

    Raises:
        Mismatch: The content differs.
        SlideError: The slide does not exist.
    """
    place, stat = (origin.url, origin.stat) if origin else (place_of(source), slide_stat(source))
    if stat.size < 0:
        raise SlideError(f"{source}: no such file. Check the path")
    if (place, stat) == (made_from.path, made_from.stat):
        return []
    same = stat.size == made_from.stat.size and identify_slide(source).content == made_from.content
    same = same or made_from.content == earlier_content(source)
    if not same and place == made_from.path:
        raise Mismatch(f"{file} was made from {place} before that file changed. {ANEW}")
    if not same:
        raise Mismatch(
            f"{file} was made from {made_from.path}, not from {place}, whose content differs:"
            f" nothing is overwritten. {ANEW}"
        )
    if place == made_from.path:
        return []
    return [f"made from {made_from.path}, whose content is the same"]
