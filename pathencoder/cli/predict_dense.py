"""`pathencoder predict` with a dense head: objects in images, and in regions of slides."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.cli.finders import Facts, Result
from pathencoder.cli.nuclei_pictures import Opened, Part
from pathencoder.cli.nuclei_report import run_all
from pathencoder.cli.nuclei_run import Asked, Run
from pathencoder.cli.nuclei_sources import find_sources, with_scales
from pathencoder.files import make_folder

if TYPE_CHECKING:
    from pathencoder.heads.dense.found import Found
    from pathencoder.heads.dense.head import DenseHead


def predict_dense(
    head: DenseHead,
    inputs: Iterable[Path],
    asked: Asked,
    *,
    mpp: float | None,
    views: int | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Predict on all inputs and report.

    Args:
        head: The head, with its encoder.
        inputs: As the user typed them.
        asked: The settings.
        mpp: Micrometres per pixel of the inputs.
        views: Views that are averaged; None: as the head was fitted.
        as_json: Print JSON instead of text.
        debug: Print tracebacks.

    Returns:
        The exit status.
    """
    sources = with_scales(find_sources(inputs, with_as=False), mpp, [])
    make_folder(asked.out)
    run = Run(asked, DenseFinder(head, views), debug=debug)
    return run_all(run, sources, as_json=as_json)


class DenseFinder:
    """What a dense head finds.

    Args:
        head: The head.
        views: Views that are averaged; None: as the head was fitted.
    """

    def __init__(self, head: DenseHead, views: int | None) -> None:
        from pathencoder.heads.dense.found import NOUNS
        from pathencoder.heads.dense.head import OVERLAP_UM

        self._head, self._views = head, views
        self.noun = NOUNS[head.kind]
        self.overlap_um = OVERLAP_UM.get(head.kind)

    @cached_property
    def digest(self) -> str:
        """What the results depend on."""
        views = self._head.settings["views"] if self._views is None else self._views
        return f"{self._head.digest()}-{views}"

    def find(self, image: Opened, part: Part, stain: str | None) -> Result:
        """The objects of a part. Raises ImageError, SlideError."""
        from pathencoder.heads.dense import files, sources

        head, pixels = self._head, image.read(part)
        mpp, source, notes = image.mpp, image.mpp_source, list[str]()
        if mpp is None:
            mpp, assumed = sources.assumed(head.record.image_mpp, "an image")
            notes += assumed
            source = "images of the fit"
        if part.region is None:
            found = head.find(pixels, mpp, stain=stain, views=self._views)
        else:
            found = head.in_region(pixels, part.region, mpp, stain=stain, views=self._views)
        columns = {
            "mpp": round(mpp, 6),
            "mpp_source": source,
            "stain": found.stain,
            "stain_source": "given" if stain else "images of the fit",
        }

        def write(folder: Path, name: str, facts: Facts) -> list[Path]:
            return files.write(found, folder, name, columns=columns, facts=facts)

        more = {"label_map": found.labels is not None, **_counts(found)}
        return Result(len(found), columns, [*notes, *found.notes], write, more)


def _counts(found: Found) -> dict[str, Any]:
    """How many objects are positive, or of each class."""
    if found.numbers is not None:
        return {"cells_of_class": {c: found.names.count(c) for c in found.classes}}
    if found.kind == "nuclei" and found.table is not None and found.table.positive is not None:
        return {"positive": int(found.table.positive.sum())}
    return {}
