"""What a dense head reaches on images that it was not fitted on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads.dense.scores import SCORING
from pathencoder.heads.report import Figure

_FEW = 10  # groups below which an interval is rough


@dataclass(frozen=True)
class DenseReport:
    """Scores of a dense head.

    Attributes:
        head: Kind of head.
        encoder: The encoder, with revision and sha256.
        part: What was evaluated: "4 folds by group", or the name of a held-out part; "" where
            nothing was.
        images: Evaluated images.
        groups: Evaluated groups; None where they are not known.
        scores: By name; empty where nothing was evaluated.
        settings: Of the fit.
        notes: What a reader has to know, as sentences.
    """

    head: str
    encoder: str
    part: str
    images: int
    groups: int | None
    scores: dict[str, Figure]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The report for reading."""
        settings = ", ".join(f"{name} {_short(value)}" for name, value in self.settings.items())
        lines = [f"{self.head} head on {self.encoder}, {settings}"]
        if self.scores:
            groups = "" if self.groups is None else f" of {self.groups:,} groups"
            lines.append(f"evaluated on {self.part}: {self.images:,} images{groups}")
            wide = max(len(name) for name in self.scores)
            lines += [f"  {name.ljust(wide)}  {figure}" for name, figure in self.scores.items()]
            lines.append(f"  ({SCORING[self.head].said})")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a score that is not defined is null."""
        content = dataclasses.asdict(self)
        for figure in content["scores"].values():
            if math.isnan(figure["value"]):
                figure["value"] = None
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> DenseReport:
        """The report that `to_json` wrote."""
        scores = {
            name: Figure(math.nan if f["value"] is None else f["value"], f["low"], f["high"])
            for name, f in content["scores"].items()
        }
        return cls(**{**content, "scores": scores, "notes": tuple(content["notes"])})


def evaluated(
    counts: Sequence[Any],
    groups: Sequence[str | None],
    *,
    head: str,
    encoder: str,
    part: str,
    classes: Sequence[str],
    settings: dict[str, Any],
    notes: Sequence[str] = (),
) -> DenseReport:
    """The report on counted images.

    Args:
        counts: Of each image, by the head's scoring.
        groups: The group of each; None where it is not known.
        head: As in `DenseReport`, as are the rest.
        encoder: The encoder.
        part: What was evaluated.
        classes: Names of the classes of "pixels".
        settings: Of the fit.
        notes: Further notes.

    Returns:
        The report, with 95 % intervals over groups where groups are known.
    """
    known = None if None in groups else [str(group) for group in groups]
    said = list(notes)
    if known is None:
        said.append(
            "no groups (patients) are known: images of one patient may be on both sides, which"
            " makes scores too good, and no interval is claimed"
        )
    elif len(set(known)) < _FEW:
        said.append(f"intervals from {len(set(known))} groups are rough")
    return DenseReport(
        head=head,
        encoder=encoder,
        part=part,
        images=len(counts),
        groups=None if known is None else len(set(known)),
        scores=_figures(counts, known, head, classes),
        settings=settings,
        notes=tuple(said),
    )


def _figures(
    counts: Sequence[Any], groups: Sequence[str] | None, head: str, classes: Sequence[str]
) -> dict[str, Figure]:
    pool = SCORING[head].pool
    values = pool(counts, classes)
    if groups is None or len(set(groups)) < 2:
        return {name: Figure(value) for name, value in values.items()}

    def figure(name: str) -> Figure:
        def statistic(rows: NDArray[np.int64]) -> float:
            # a resample may hold no fold that knows a class
            value = drawn(rows).get(name, math.nan)
            if math.isnan(value):
                raise ConfigError(f"{name} is not defined")
            return value

        try:
            found = metrics.grouped_bootstrap(statistic, groups)
        except ConfigError:  # not defined for these images
            return Figure(values[name])
        return Figure(values[name], found.low, found.high)

    known: dict[bytes, dict[str, float]] = {}

    def drawn(rows: NDArray[np.int64]) -> dict[str, float]:
        """The scores of a resample; every score has the same resamples."""
        key = rows.tobytes()
        if key not in known:
            known[key] = pool([counts[row] for row in rows], classes)
        return known[key]

    return {name: figure(name) for name in values}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
