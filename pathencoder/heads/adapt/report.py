"""The frozen head beside the adapted encoder, on the same images, and how the adaptation went."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads.adapt.train import Epoch
from pathencoder.heads.report import Figure, Report
from pathencoder.heads.rows import Floats, Ints

_WIDE = 24


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same images.

    Attributes:
        frozen: A linear head on the embeddings of the parent.
        adapted: A linear head on the embeddings of the adapted encoder.
        balanced_accuracy: Adapted minus frozen, with a paired interval over groups.
        auroc: The same of AUROC.
        probabilities: Of frozen and adapted, float64 [2, N, C], in the order of the images.
    """

    frozen: Report
    adapted: Report
    balanced_accuracy: Figure
    auroc: Figure
    probabilities: Floats = field(repr=False, compare=False)

    def text(self) -> str:
        """The comparison for reading."""
        a, b = self.frozen, self.adapted
        groups = "" if b.groups is None else f" of {b.groups:,} groups"
        rows = [
            ("", "frozen, linear head", "adapted", "difference"),
            (
                "balanced accuracy",
                *map(str, (a.balanced_accuracy, b.balanced_accuracy)),
                _signed(self.balanced_accuracy),
            ),
            ("AUROC", *map(str, (a.auroc, b.auroc)), _signed(self.auroc)),
            *(
                (f"recall of {name}", f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}")
                for name, old, new in zip(b.classes, a.recalls, b.recalls, strict=True)
            ),
        ]
        first = max(len(row[0]) for row in rows)
        lines = [
            "  " + "  ".join([row[0].ljust(first), *(cell.ljust(_WIDE) for cell in row[1:])])
            for row in rows
        ]
        said = f"evaluated on {b.part}: {sum(b.images):,} images{groups}"
        notes = [f"  Note: {note}" for note in b.notes]
        return "\n".join([said, *(line.rstrip() for line in lines), *notes])

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "frozen": self.frozen.to_json(),
            "adapted": self.adapted.to_json(),
            "difference": {
                "balanced_accuracy": _figure_json(self.balanced_accuracy),
                "auroc": _figure_json(self.auroc),
            },
        }


@dataclass(frozen=True)
class AdaptationReport:
    """How an encoder was adapted, and what that brought.

    Attributes:
        encoder: The parent, with revision and sha256.
        settings: What was given or chosen.
        images: Images of the train part.
        groups: Its groups; None where they are not known.
        trained: How many numbers were trained: of the encoder, or of its adapters.
        parameters: How many numbers the encoder has.
        epochs: The epochs that were run, from before the first step on.
        best: The epoch whose weights were kept.
        stopping: On the images whose loss ended the training: figures are slightly too good.
        folds: On folds by group, each with an adaptation of its own.
        held_out: On the held-out part.
        notes: What a reader has to know, as sentences.
    """

    encoder: str
    settings: dict[str, Any]
    images: int
    groups: int | None
    trained: int
    parameters: int
    epochs: tuple[Epoch, ...]
    best: int
    stopping: Comparison | None = None
    folds: Comparison | None = None
    held_out: Comparison | None = None
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The report for reading."""
        groups = "" if self.groups is None else f" of {self.groups:,} groups"
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        parts = [
            f"adapted {self.encoder}: {settings}",
            f"trained {self.trained:,} numbers (the encoder has {self.parameters:,}) on"
            f" {self.images:,} images{groups}; kept epoch {self.best} of {self.epochs[-1].number}",
            *(part.text() for part in (self.stopping, self.folds, self.held_out) if part),
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a figure that is not defined is null."""
        content = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in ("stopping", "folds", "held_out", "epochs")
        }
        epochs = [
            {key: _finite(value) for key, value in dataclasses.asdict(epoch).items()}
            for epoch in self.epochs
        ]
        compared = {
            name: part and part.to_json()
            for name, part in (
                ("stopping", self.stopping),
                ("folds", self.folds),
                ("held_out", self.held_out),
            )
        }
        return {**content, "notes": list(self.notes), "epochs": epochs, **compared}


def difference(
    statistic: Callable[[Ints, Floats], float],
    frozen: Floats,
    adapted: Floats,
    y: Ints,
    groups: Sequence[str] | None,
) -> Figure:
    """Adapted minus frozen, with a 95 % interval from a bootstrap over groups.

    Args:
        statistic: Of class numbers [N] and probabilities [N, C].
        frozen: Probabilities [N, C].
        adapted: Probabilities [N, C] of the same images.
        y: Class numbers [N].
        groups: Of each image; without groups no interval is claimed.

    Returns:
        The difference; NaN where the statistic is not defined.
    """

    def of(rows: Ints) -> float:
        return statistic(y[rows], adapted[rows]) - statistic(y[rows], frozen[rows])

    try:
        if groups is None or len(set(groups)) < 2:
            return Figure(of(np.arange(len(y))))
        found = metrics.grouped_bootstrap(of, groups, labels=y)
    except ConfigError:  # a class is missing: the statistic is not defined
        return Figure(math.nan)
    return Figure(found.value, found.low, found.high)


def balanced_accuracy(y: Ints, probabilities: Floats) -> float:
    """Balanced accuracy of the most probable classes."""
    return metrics.balanced_accuracy(y, probabilities.argmax(1))


def auroc(y: Ints, probabilities: Floats) -> float:
    """AUROC of probabilities [N, C]. Raises ConfigError where a class is missing."""
    return metrics.auroc(y, probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities)


def _signed(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.3f}"
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def _figure_json(figure: Figure) -> dict[str, float | None]:
    return {key: _finite(value) for key, value in dataclasses.asdict(figure).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
