"""`pathencoder.open_dataset`."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pathencoder.errors import ConfigError
from pathencoder.heads.datasets.catalogue import public_set
from pathencoder.heads.datasets.counts import differences
from pathencoder.heads.datasets.places import root_of
from pathencoder.heads.datasets.public_set import PublicSet

if TYPE_CHECKING:
    from pathencoder.heads.data.dataset import Dataset
    from pathencoder.heads.data.pictures import PictureSet

log = logging.getLogger(__name__)


def open_dataset(name: str, folder: str | os.PathLike[str], **options: Any) -> Dataset | PictureSet:
    """Open a public data set that you downloaded, with its own classes, parts and groups.

        data = pathencoder.open_dataset("mhist", "downloads/mhist")
        head = pathencoder.fit("linear", None, data, evaluate="test")

    Nothing is downloaded, copied or written. The numbers of images are compared with the published
    ones; a difference, the licence and what is known to be wrong with a set are in its notes, which
    the report of a head repeats.

    Args:
        name: "pcam", "nct-crc", "bach", "breakhis", "mhist" (images with a class), "glas",
            "monuseg", "pannuke", "lizard", "consep" (outlines), "bcdata" or "midog++" (points).
        folder: Where its archives were unpacked, or a folder up to two levels above.
        **options: Of the set, for example fold=1 of "breakhis"; see docs/datasets.md.

    Returns:
        What `fit` takes: a `Dataset`, or for outlines and points a `PictureSet`.

    Raises:
        ConfigError: There is no such set or option; the folder does not hold the set, or it is
            incomplete. The message says which files were expected.
        MissingExtra: The set has MATLAB files, and SciPy is not installed.
    """
    public = public_set(name)
    _known(public, options)
    reading = public.read(root_of(folder, public), public, **options)
    differ = differences(reading.found, reading.published)
    for note in differ:
        log.warning("%s: %s", public.title, note)
    notes = (*differ, *reading.data.notes, public.terms(), *public.notes)
    return dataclasses.replace(reading.data, notes=notes)


def _known(public: PublicSet, options: Iterable[str]) -> None:
    for name in options:
        if name in public.options:
            continue
        has = "has no options"
        if public.options:
            has = f"has the options {', '.join(public.options)}"
        near = difflib.get_close_matches(name, list(public.options), n=1)
        meant = f". Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name}: the data set {public.name!r} {has}{meant}")
