"""Images with outlines or points, as the sets hand them on to be checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pathencoder.heads.data.listing import Found, Listing
from pathencoder.heads.data.marks import Source
from pathencoder.heads.data.pictures import PictureSet, check_pictures
from pathencoder.heads.datasets.public_set import Counts, PublicSet
from pathencoder.images import Item
from pathencoder.walk import printable


def picture(
    image: Path,
    labels: Source,
    part: str,
    public: PublicSet,
    *,
    group: str | None = None,
    mpp: float | None = None,
    item: Item | None = None,
) -> Found:
    """One image with the place of its labels.

    Args:
        image: The file.
        labels: Its labels.
        part: "train", "test", "fold1" or another.
        public: The set, whose stain it has.
        group: Its patient. None: not known.
        mpp: Its micrometres per pixel. None: those of the set.
        item: The image, where the file holds several.

    Returns:
        The image.
    """
    return Found(
        image=image,
        labels=labels,
        where=printable(image) if item is None else item.where,
        split=part,
        group=group,
        mpp=f"{mpp or public.mpp or 0:g}",
        stain=public.stain,
        item=item,
    )


def picture_set(rows: Sequence[Found], task: str, notes: Iterable[str] = ()) -> PictureSet:
    """Check the images and their labels, each of which is opened once.

    Args:
        rows: The images.
        task: As for `read_pictures`.
        notes: On how they were read.

    Returns:
        The set.

    Raises:
        ConfigError: Images or labels are damaged or do not fit; the message lists all of them.
    """
    return check_pictures(Listing(rows, tuple(notes)), task=task)


def counted(rows: Sequence[Found]) -> Counts:
    """How many images each part holds."""
    parts = Counter(row.split.casefold() for row in rows)
    return {part: {"images": count} for part, count in parts.items()}
