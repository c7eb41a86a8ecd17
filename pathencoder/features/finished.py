"""What a finished feature file says of its making: a later run skips or reuses its rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.errors import PathEncoderError
from pathencoder.features import containers, layouts, store
from pathencoder.features.identity import SlideIdentity, Stamp, Stat
from pathencoder.features.journal import describe_differences
from pathencoder.features.provenance import Provenance
from pathencoder.files import Mismatch

ANEW = "Choose another --out, or start again with --overwrite (overwrite=True in Python)"


def read_settings(path: Path) -> dict[str, Any] | None:
    """The provenance of a feature file that this package wrote, as its JSON says it.

    Returns:
        None for a file of another program.

    Raises:
        Mismatch: The file is damaged.
    """
    with reading(path) as file:
        text = file.attrs.get("recipe")
        return json.loads(text) if text else None


def check_provenance(file: Path, provenance: Provenance, layout: str) -> None:
    """Refuse a feature file that was made with other settings.

    Args:
        file: An existing file.
        provenance: Of the input that is to have this file.
        layout: Of the file, where the input is a slide.

    Raises:
        Mismatch: It has another provenance or layout, is damaged, or was not written by this
            package.
    """
    found = check_kind(file, layout, is_slide=provenance.tissue is not None)
    if found != provenance.settings():
        differences = describe_differences(found, provenance.settings())
        raise Mismatch(f"{file} was made with other settings ({differences}). {ANEW}")


def check_kind(file: Path, layout: str, *, is_slide: bool) -> dict[str, Any]:
    """The provenance of an existing file, as JSON; `check_provenance` without the encoder.

    Args:
        file: An existing file.
        layout: Of the file, where the input is a slide.
        is_slide: Whether the input that is to have this file is a slide.

    Raises:
        Mismatch: Another program wrote the file, it is damaged, holds the other kind of input, or
            has another layout.
    """
    found = read_settings(file)
    if found is None:
        raise Mismatch(f"{file} was not written by pathencoder and is not changed. {ANEW}")
    if ("tissue" in found) != is_slide:
        there, here = ("tiles", "a slide") if is_slide else ("a slide", "tiles")
        raise Mismatch(
            f"{file} holds {there}, and this input is {here}: nothing is overwritten. {ANEW}"
        )
    if is_slide and (there := read_facts(file).layout) != layout:
        raise Mismatch(f"{file} has the layout {there}, not {layout}. {ANEW}")
    return found


def refuse_lone_tensor(file: Path, layout: str) -> None:
    """Refuse to replace a tensor of the layout clam that no feature file says the making of.

    `writer` writes the tensor last: a run that was killed leaves none without its feature file.

    Args:
        file: The feature file that is to be written.
        layout: Of the file.

    Raises:
        Mismatch: The tensor exists, and the feature file does not.
    """
    if layout == "clam" and not file.exists() and (tensor := layouts.tensor_path(file)).exists():
        raise Mismatch(f"{tensor} exists without {file}: nothing is overwritten. {ANEW}")


@dataclass(frozen=True)
class Parts:
    """The images of a tiles file.

    Attributes:
        folder: Where they were, absolute.
        known: The key of each row, in the file's order, and the stamp of its image.
        take: Reads the rows at ascending places: float32 [len(places), ...]. Raises Mismatch where
            the rows are not what was written.
        failures: The images that failed.
    """

    folder: str
    known: dict[str, Stamp]
    take: Callable[[Sequence[int]], store.Rows]
    failures: list[store.Failure]


def read_parts(path: Path) -> Parts:
    """The images of a tiles file that this package wrote.

    Raises:
        Mismatch: The file is damaged.
    """
    with reading(path) as file:
        keys = [str(k) for k in containers.text(file["keys"])]
        stats = zip(
            file["sizes"][:].tolist(),
            file["times"][:].tolist(),
            file["hashes"][:].tolist(),
            strict=True,
        )
        stamps = [
            Stamp(Stat(size, *times), bytes.fromhex(text.decode())) for size, times, text in stats
        ]
        folder, failures = str(file.attrs["source_path"]), store.read_failures(file)

    is_checked = False

    def take(places: Sequence[int]) -> store.Rows:
        nonlocal is_checked
        with reading(path, rows=not is_checked) as file:  # copies get checksums of their own
            is_checked = True
            return np.asarray(file["features"][list(places)], dtype=np.float32)

    return Parts(folder, dict(zip(keys, stamps, strict=True)), take, failures)


@dataclass(frozen=True)
class Facts:
    """What a slide's file holds beside its rows.

    Attributes:
        count: Number of rows.
        slide: The slide that it was made from.
        layout: One of `layouts.LAYOUTS`.
        failures: The tiles that failed.
        notes: The notes of the run that made it.
        reader: The library that read the slide, and its version.
        mpp: Micrometres per level-0 pixel; None where the file does not state it.
        has_quality: Whether it holds the quality of the tiles.
    """

    count: int
    slide: SlideIdentity
    layout: str
    failures: list[store.Failure]
    notes: list[str]
    reader: str
    mpp: float | None
    has_quality: bool


def read_facts(path: Path) -> Facts:
    """The facts of a slide's file that this package wrote.

    Raises:
        Mismatch: The file is damaged.
    """
    with reading(path) as file:
        attributes, layout = file.attrs, str(file.attrs["layout"])
        notes = str(attributes.get("notes", "")).splitlines()
        mpp = attributes.get("slide_mpp")
        return Facts(
            int(file[layouts.feature_name(layout)].shape[0]),
            identity_of(attributes),
            layout,
            store.read_failures(file),
            notes,
            str(attributes.get("reader", "")),
            None if mpp is None else float(mpp),
            store.has_quality(file.get("obs", file)),
        )


def identity_of(attributes: Mapping[str, Any]) -> SlideIdentity:
    """The identity of the slide that a file was made from, of the attributes of `slide_facts`."""
    stat = Stat(int(attributes["slide_bytes"]), *(int(t) for t in attributes["slide_times"]))
    return SlideIdentity(str(attributes["slide_path"]), stat, str(attributes["slide_hash"]))


def slide_facts(slide: SlideIdentity) -> dict[str, Any]:
    """The attributes from which `identity_of` restores a slide's identity."""
    times = np.array(slide.stat[1:], np.int64)
    return {
        "slide_path": slide.path,
        "slide_bytes": slide.stat.size,
        "slide_times": times,
        "slide_hash": slide.content,
    }


@contextlib.contextmanager
def reading(path: Path, *, rows: bool = False) -> Iterator[Any]:
    """Open a file of this package for reading.

    Args:
        path: The file.
        rows: Also compare the rows with their checksum.

    Raises:
        Mismatch: It is damaged.
    """
    try:
        with containers.opened(path, rows=rows) as file:
            yield file
    except PathEncoderError:
        raise
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        raise Mismatch(f"{path} is damaged: {error}. Delete it, or use --overwrite") from error
