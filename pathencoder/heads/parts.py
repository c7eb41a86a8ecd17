"""The train part and the held-out part of a data set, read before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathencoder.errors import ImageError
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.classifier import part_of
from pathencoder.heads.data.check import kept_classes, known_classes, train_part
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.embed import Embedded, embed
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

_SHOWN = 20


@dataclass(frozen=True)
class Part:
    """A part of a data set whose images were embedded.

    Attributes:
        data: Its images that can be read.
        found: Their rows.
        notes: On images that were left out.
    """

    data: Dataset
    found: Embedded
    notes: tuple[str, ...] = ()


def held_out_part(data: Dataset, name: str | None, train: Dataset) -> Dataset | None:
    """The part to evaluate on; None where none is named.

    Raises:
        ConfigError: There is no such part, or it has a class that the train part lacks.
    """
    if name is None:
        return None
    found = part_of(data, name)
    known_classes(found, train.classes)
    return found


def embed_parts(
    encoder: Encoder,
    record: EncoderRecord,
    train: Dataset,
    held_out: Dataset | None,
    *,
    cache: bool,
    skip_bad: bool,
    progress: Progress,
) -> tuple[Part, Part | None]:
    """Embed both parts, so that an image that cannot be read is found before a head is fitted.

    Args:
        encoder: The encoder.
        record: How it is read.
        train: The images to fit on.
        held_out: The images to evaluate on. None: there are none.
        cache: Keep the rows on disk.
        skip_bad: Leave out images that cannot be read, and note it.
        progress: As for `Encoder.encode`.

    Returns:
        The train part and the held-out part.

    Raises:
        ImageError: Images cannot be read and `skip_bad` is false, which the message lists; or none
            of a part can be read.
        ConfigError: Without these images a class of the train part, or all groups but one, are
            missing.
    """
    data = [train] if held_out is None else [train, held_out]
    found = embed(
        encoder,
        record,
        [image for part in data for image in part.images],
        [part.name(row) for part in data for row in range(len(part))],
        cache=FeatureCache.default() if cache else None,
        progress=progress,
    )
    if found.errors and not skip_bad:
        raise ImageError(
            f"{len(found.errors):,} of {len(found.rows):,} images cannot be read:\n"
            f"{_listed(found.errors)}\nRemove them from the data set, or leave them out with"
            " on_error='skip' (--skip-bad)"
        )
    first = _readable(train, found, 0)
    kept_classes(first.data, train.classes)
    first = Part(train_part(first.data), first.found, first.notes)
    if held_out is None:
        return first, None
    second = _readable(held_out, found, len(train))
    known_classes(second.data, first.data.classes)
    return first, second


def _readable(data: Dataset, found: Embedded, start: int) -> Part:
    """The images of a part that can be read; its rows begin at `start`."""
    every = range(start, start + len(data))
    errors = {number: found.errors[number] for number in every if number in found.errors}
    good = [number for number in every if number not in errors]
    if not good:
        raise ImageError(
            f"none of the images of the part {data.part(0)!r} can be read:\n{_listed(errors)}"
        )
    contents = [found.contents[number] for number in good]
    rows = Embedded(found.rows[good], contents, {}, found.new)
    if not errors:
        return Part(data, rows)
    kept = data.take([number - start for number in good])
    said = f"{len(errors):,} images that cannot be read were left out:\n{_listed(errors)}"
    return Part(kept, rows, (said,))


def _listed(errors: dict[int, ImageError]) -> str:
    lines = [f"  {error}" for _, error in sorted(errors.items())]
    more = [f"  and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])
