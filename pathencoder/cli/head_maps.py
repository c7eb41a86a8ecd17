"""`pathencoder picture --kind attention` and `--kind scores`: what a slide head sees in a slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.slide.base import FeatureHead

OF_HEAD = ("attention", "scores")
_LOW = 0.5  # agreement below which a map is called uncertain


@dataclass(frozen=True)
class Shown:
    """The values that a map shows.

    Attributes:
        values: One for each tile, float64 [N].
        title: What they are.
        notes: What a reader has to know, as sentences.
    """

    values: Any
    title: str
    notes: tuple[str, ...]


def check(kind: str, head: str | None, label: str | None) -> None:
    """Refuse options that do not go together.

    Raises:
        click.UsageError: They do not.
    """
    if (kind in OF_HEAD) != (head is not None):
        needed = "needs --head" if head is None else "is of the features alone: leave --head out"
        raise click.UsageError(f"--kind {kind} {needed}")
    if label is not None and kind != "scores":
        raise click.UsageError(f"--label is for --kind scores, not for {kind}")


def values_of(kind: str, name: str, features: Path, label: str | None) -> Shown:
    """The attention that a head pays to the tiles of a slide, or their scores for a class.

    Args:
        kind: "attention" or "scores".
        name: Of the head: a folder, or owner/repo.
        features: The feature file of the slide.
        label: The class of the scores. None: the one that the head predicts.

    Raises:
        click.UsageError: The head is not of slides, or does not know the class.
        PathEncoderError: The head or the file cannot be read, or they do not belong together.
    """
    from pathencoder.heads.fit import load_head
    from pathencoder.heads.slide.head import SlideHead
    from pathencoder.heads.slide.survival import SurvivalHead

    head = load_head(name)
    if isinstance(head, SurvivalHead) and kind == "attention":
        risk = head.predict(features).risks[0]
        return _attention(head, features, [f"the log of the relative hazard is {risk:.2f}"])
    if not isinstance(head, SlideHead):
        raise click.UsageError(
            f"{printable(name)} gives no classes of slides ({head.kind}): --kind {kind} needs a"
            " head that does (abmil, slide-mean, slide-max)"
        )
    if label is not None and label not in head.classes:
        raise click.UsageError(f"--label {label}: the head knows {', '.join(head.classes)}")
    found = head.predict(features)
    sure = float(found.probabilities[0].max())
    predicted = found.labels[0]
    notes = [f"the head predicts {predicted} (probability {sure:.2f})"]
    if kind == "attention":
        return _attention(head, features, notes)
    chosen = label or predicted
    _, scores = head.tile_scores(features)
    notes.append("scores of single tiles are not calibrated")
    values = scores[:, head.classes.index(chosen)]
    return Shown(values, f"Score of each tile for {chosen}", tuple(notes))


def _attention(head: FeatureHead, features: Path, notes: list[str]) -> Shown:
    found = head.attention(features)
    if found.agreement < _LOW:
        notes.append(
            f"the {len(found.by_network)} networks of the head hardly agree (mean correlation"
            f" {found.agreement:.2f}): the map is uncertain"
        )
    elif found.agreement >= _LOW:  # not so for NaN: one network
        notes.append(
            f"mean of {len(found.by_network)} networks, whose weights correlate by"
            f" {found.agreement:.2f}"
        )
    values = found.weights * len(found.weights)
    return Shown(values, f"Attention ({head.kind}): 1 is an average tile", tuple(notes))
