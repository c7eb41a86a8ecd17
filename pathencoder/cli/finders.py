"""What finds the objects in the parts of images and slides: the label-free nuclei."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pathencoder.cli.nuclei_pictures import Opened, Part

if TYPE_CHECKING:
    from pathencoder.nuclei.network import NucleiNetwork
    from pathencoder.nuclei.segment import Nuclei

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What was found in one part.

    Attributes:
        count: Objects.
        columns: Values that describe the part, repeated in every row of the table.
        notes: What the user should know.
        write: Writes the files of a name into a folder; takes the facts that they hold, too.
        more: Further facts.
    """

    count: int
    columns: Facts
    notes: Sequence[str]
    write: Callable[[Path, str, Facts], list[Path]]
    more: Facts = field(default_factory=dict)


class Finder(Protocol):
    """What finds objects.

    Attributes:
        noun: What it counts, in the plural.
        overlap_um: How far a region of a slide sees beyond itself; None: enough for nuclei.
    """

    noun: str
    overlap_um: float | None

    @property
    def digest(self) -> str:
        """What its results depend on, as a hash."""

    def find(self, image: Opened, part: Part, stain: str | None) -> Result:
        """The objects of a part. Raises ImageError, SlideError."""


class NucleiFinder:
    """Nuclei without labels.

    Args:
        network: The network.
    """

    noun = "nuclei"
    overlap_um: float | None = None

    def __init__(self, network: NucleiNetwork) -> None:
        from pathencoder.nuclei.weights import digest

        self._network = network
        self.digest = digest(network)

    def find(self, image: Opened, part: Part, stain: str | None) -> Result:
        """The nuclei of a part. Raises ImageError, SlideError."""
        from pathencoder.nuclei.outputs import write_all

        nuclei, pixels = image.segment(part, self._network)
        columns = _columns(nuclei, image.mpp_source, stain)
        said = [nuclei.stain.text] if nuclei.stain.decided else []  # otherwise there is a note
        offset = part.region.box[:2] if part.region else (0, 0)

        def write(folder: Path, name: str, facts: Facts) -> list[Path]:
            return write_all(
                nuclei, pixels, folder, name, offset=offset, columns=columns, facts=facts
            )

        more = {"positive": count_positive(nuclei)}
        return Result(len(nuclei), columns, [*said, *nuclei.notes], write, more)


def count_positive(nuclei: Nuclei) -> int | None:
    """DAB-positive nuclei; None for H&E."""
    return None if nuclei.table.positive is None else int(nuclei.table.positive.sum())


def _columns(nuclei: Nuclei, mpp_source: str, asked: str | None) -> dict[str, Any]:
    """The values that describe the image, repeated in every row of the table."""
    from pathencoder.nuclei.scale import ASSUMED_MPP

    stain = nuclei.stain
    how = "given" if stain.stain == asked else "guessed" if stain.decided else "assumed"
    return {
        "mpp": round(nuclei.mpp, 6),
        "mpp_source": mpp_source or ("assumed" if nuclei.mpp == ASSUMED_MPP else "size of nuclei"),
        "stain": stain.stain,
        "stain_source": how,
        "stain_confidence": round(float(stain.confidence), 3),
    }
