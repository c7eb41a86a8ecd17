"""The coordinates of a slide's tiles in a file of their own, written before any tile is read.

The file says what made it, as a feature file does: a later run skips a slide that is done, and
replaces nothing of another slide or of other settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from pathencoder.features.before import check_slide
from pathencoder.features.finished import ANEW, identity_of, reading, slide_facts
from pathencoder.features.identity import Origin, SlideIdentity
from pathencoder.features.job import Outcome
from pathencoder.features.journal import describe_differences
from pathencoder.features.layouts import Place, attributes, coords_on_disk, facts_of
from pathencoder.features.provenance import Settings, grid_recipe
from pathencoder.files import Mismatch, whole_file

if TYPE_CHECKING:
    from pathencoder.spec import EncoderSpec

_RECIPE = "grid_recipe"  # the attribute; that of a feature file is another


@dataclass(frozen=True)
class Made:
    """What a file of coordinates was made from.

    Attributes:
        recipe: As `grid_recipe` gives it.
        slide: The slide.
        notes: Of the run that made it.
    """

    recipe: Mapping[str, Any]
    slide: SlideIdentity
    notes: Sequence[str]


def write_coords(place: Place, file: Path, made: Made) -> Path:
    """Write the coordinates of tiles as TRIDENT does: `coords` int64 [N, 2] and its attributes.

    Args:
        place: The positions.
        file: The .h5 file; one that exists is replaced when the new one is complete.
        made: What they were made from.

    Returns:
        The file, which `encode --coords` and TRIDENT read.

    Raises:
        StoreError: It cannot be written.
    """
    with whole_file(file) as temporary, h5py.File(temporary, "w") as out:
        out["coords"] = coords_on_disk("trident", place)
        out["coords"].attrs.update(attributes("trident", place, "", str(file.parent))["coords"])
        out.attrs.update(facts_of(place))  # among them the exact side, which TRIDENT's rounds
        out.attrs.update(slide_facts(made.slide))
        out.attrs[_RECIPE] = json.dumps(dict(made.recipe))
        out.attrs["notes"] = "\n".join(made.notes)
    return file


def coords_before(
    source: Path, file: Path, spec: EncoderSpec, settings: Settings, origin: Origin | None = None
) -> Outcome | None:
    """The outcome of an earlier run that made this file of coordinates from this slide.

    Returns:
        None where the file does not exist or is to be made anew.

    Raises:
        Mismatch: The file is of another slide, of other settings, of another program, or damaged.
        PathEncoderError: As for `grid_recipe`.
    """
    if settings.overwrite or not file.exists():
        return None
    made, rows = check_recipe(file, spec, settings)
    notes = check_slide(source, made.slide, file, origin)
    return Outcome(source, "before", file, rows, notes=[*notes, *made.notes])


def check_recipe(file: Path, spec: EncoderSpec, settings: Settings) -> tuple[Made, int]:
    """Refuse a file of coordinates that was made with other settings.

    Args:
        file: An existing file.
        spec: Of the encoder.
        settings: Of the slide that is to have this file.

    Returns:
        What made it, and the number of its tiles.

    Raises:
        Mismatch: As for `coords_before`.
    """
    made, rows = _read(file)
    recipe = grid_recipe(spec, settings)
    if made.recipe != recipe:
        differences = describe_differences(dict(made.recipe), recipe)
        raise Mismatch(f"{file} was made with other settings ({differences}). {ANEW}")
    return made, rows


def remote_coords_before(
    origin: Origin, file: Path, spec: EncoderSpec, settings: Settings
) -> Outcome | None:
    """As `coords_before`, of a remote slide that was not downloaded.

    Returns:
        None also where the file was made from another version or another place: the content
        decides.
    """
    if settings.overwrite or not file.exists():
        return None
    made_from = _read(file)[0].slide
    if (made_from.path, made_from.stat) != (origin.url, origin.stat):
        return None
    return coords_before(file, file, spec, settings, origin)


def _read(file: Path) -> tuple[Made, int]:
    """What made a file of coordinates, and the number of its tiles."""
    with reading(file) as opened:
        recipe = opened.attrs.get(_RECIPE)
        if recipe is None:
            raise Mismatch(f"{file} does not say what it was made from, and is kept. {ANEW}")
        notes = str(opened.attrs["notes"]).splitlines()
        made = Made(json.loads(recipe), identity_of(opened.attrs), notes)
        return made, int(opened["coords"].shape[0])
