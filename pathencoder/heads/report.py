"""What a head reaches on images that it was not fitted on, with intervals over groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads.calibration import NEVER, Abstention
from pathencoder.heads.rows import Floats, Ints


@dataclass(frozen=True)
class Figure:
    """A figure, and its 95 % interval from a bootstrap over groups where groups are known.

    Attributes:
        value: The figure over all images; NaN where it is not defined.
        low: None without an interval.
        high: None without an interval.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Report:
    """Figures of a classifier.

    Attributes:
        head: Kind of head.
        encoder: The encoder, with revision and sha256.
        part: What was evaluated: "5 folds by group", or the name of a held-out part.
        classes: In the order of the numbers below.
        images: Evaluated images of each class, or slides or patients: what `unit` says.
        groups: Evaluated groups; None where they are not known.
        balanced_accuracy: Mean recall of the classes.
        auroc: Area under the ROC curve; with several classes the mean of each against the rest.
        confusion: Rows are the true classes, columns the predicted ones.
        settings: What was chosen or given.
        abstention: None where none was asked for.
        notes: What a reader has to know, as sentences.
        unit: What was classified: "images", "slides" or "patients".
    """

    head: str
    encoder: str
    part: str
    classes: tuple[str, ...]
    images: tuple[int, ...]
    groups: int | None
    balanced_accuracy: Figure
    auroc: Figure
    confusion: tuple[tuple[int, ...], ...]
    settings: dict[str, Any]
    abstention: Abstention | None = None
    notes: tuple[str, ...] = ()
    unit: str = "images"

    @property
    def recalls(self) -> tuple[float, ...]:
        """Recall of each class; NaN for a class without images."""
        return tuple(
            row[i] / sum(row) if sum(row) else float("nan") for i, row in enumerate(self.confusion)
        )

    def text(self) -> str:
        """The report for reading."""
        groups = "" if self.groups is None else f" of {self.groups:,} groups"
        settings = ", ".join(f"{name} {_short(value)}" for name, value in self.settings.items())
        lines = [
            f"{self.head} head on {self.encoder}" + (f", {settings}" if settings else ""),
            f"evaluated on {self.part}: {sum(self.images):,} {self.unit}{groups}",
            f"  balanced accuracy  {self.balanced_accuracy}",
            f"  AUROC              {self.auroc}",
            *self._abstention_lines(),
            *self._confusion_lines(),
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a figure that is not defined is null."""
        found: dict[str, Any] = _finite(dataclasses.asdict(self))
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """The report that `to_json` wrote."""

        def figure(values: dict[str, Any]) -> Figure:
            value = values["value"]
            return Figure(math.nan if value is None else value, values["low"], values["high"])

        given = content["abstention"]
        if given is not None:
            error = math.nan if given["error"] is None else given["error"]
            given = Abstention(**{**given, "error": error})
        return cls(
            **{
                **content,
                "classes": tuple(content["classes"]),
                "images": tuple(content["images"]),
                "balanced_accuracy": figure(content["balanced_accuracy"]),
                "auroc": figure(content["auroc"]),
                "confusion": tuple(map(tuple, content["confusion"])),
                "abstention": given,
                "notes": tuple(content["notes"]),
            }
        )

    def _abstention_lines(self) -> list[str]:
        chosen = self.abstention
        if chosen is None:
            return []
        if chosen.threshold == NEVER:
            return [f"  abstains always: no probability has at most {chosen.max_error:.1%} errors"]
        keeps = f"  abstains below probability {chosen.threshold:.3f}: keeps"
        asked = f"asked: at most {chosen.max_error:.1%}"
        if not chosen.kept:
            return [f"{keeps} none of the {self.unit} ({asked})"]
        if chosen.most is not None:
            asked += f"; with {chosen.images:,} {self.unit}, up to {chosen.most:.1%} is possible"
        return [
            f"{keeps} {chosen.kept:.1%} of the {self.unit}, {chosen.error:.1%} of them wrong"
            f" ({asked})"
        ]

    def _confusion_lines(self) -> list[str]:
        corner = "true, predicted"
        wide = max(len(corner), *(len(name) for name in self.classes))
        columns = [max(len(name), 6) for name in self.classes]
        header = "  ".join(
            name.rjust(width) for name, width in zip(self.classes, columns, strict=True)
        )
        lines = [f"  {corner.ljust(wide)}  {header}  recall"]
        for name, row, recall in zip(self.classes, self.confusion, self.recalls, strict=True):
            counts = "  ".join(
                f"{count:,}".rjust(width) for count, width in zip(row, columns, strict=True)
            )
            lines.append(f"  {name.ljust(wide)}  {counts}  {recall:6.3f}")
        return lines


def evaluated(
    probabilities: Floats,
    y: Ints,
    groups: Sequence[str] | None,
    classes: Sequence[str],
    *,
    head: str,
    encoder: str,
    part: str,
    settings: dict[str, Any],
    abstention: Abstention | None = None,
    notes: Sequence[str] = (),
    unit: str = "images",
) -> Report:
    """Evaluate predictions.

    Args:
        probabilities: [N, C].
        y: Class numbers [N].
        groups: The group of each image. None: not known, and no interval is claimed.
        classes: Their names.
        head: As in `Report`, as are the rest.
        encoder: The encoder.
        part: What was evaluated.
        settings: What was chosen.
        abstention: Where the head abstains.
        notes: Further notes.
        unit: What was classified.

    Returns:
        The report.

    Raises:
        ConfigError: Probabilities are not finite.
    """
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).any(1).sum())
        raise ConfigError(
            f"{part}: the predictions of {bad:,} of {len(y):,} {unit} are NaN or infinite: the"
            " embeddings overflow in this precision, or the head is broken"
        )
    predicted = probabilities.argmax(1)
    said = list(notes)
    if groups is None:
        said.append(
            f"no groups (patients) are known: {unit} of one patient may be both fitted on and"
            " evaluated, which makes figures too good, and no interval is claimed"
        )
    elif len(set(groups)) < 10:
        said.append(f"intervals from {len(set(groups))} groups are rough")
    absent = [name for i, name in enumerate(classes) if not (y == i).any()]
    if absent:
        said.append(f"no {unit} of class {', '.join(absent)}: AUROC is not defined")

    def balanced(rows: Ints) -> float:
        return metrics.balanced_accuracy(y[rows], predicted[rows])

    def area(rows: Ints) -> float:
        scores = probabilities[rows]
        return metrics.auroc(y[rows], scores[:, 1] if len(classes) == 2 else scores)

    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (y, predicted), 1)
    return Report(
        head=head,
        encoder=encoder,
        part=part,
        classes=tuple(classes),
        images=tuple(int(n) for n in counts.sum(1)),
        groups=None if groups is None else len(set(groups)),
        balanced_accuracy=_figure(balanced, y, groups),
        auroc=Figure(math.nan) if absent else _figure(area, y, groups),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        settings=settings,
        abstention=abstention,
        notes=tuple(said),
        unit=unit,
    )


def _figure(statistic: Any, y: Ints, groups: Sequence[str] | None) -> Figure:
    value = float(statistic(np.arange(len(y))))
    if groups is None or len(set(groups)) < 2:
        return Figure(value)
    try:
        found = metrics.grouped_bootstrap(statistic, groups, labels=y)
    except ConfigError:  # no resample held every class
        return Figure(value)
    return Figure(value, found.low, found.high)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
