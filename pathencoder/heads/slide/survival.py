"""Survival by slide: a risk for each slide or patient, by the partial likelihood of Cox."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads import judge, store
from pathencoder.heads.classifier import part_of
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.folds import NoFolds
from pathencoder.heads.report import Figure
from pathencoder.heads.rows import Floats, Ints
from pathencoder.heads.slide.bags import Bags
from pathencoder.heads.slide.base import FeatureHead, Files
from pathencoder.heads.slide.cox import Concordance
from pathencoder.heads.slide.fit import Prepared, SlideFitting, counted, of_part
from pathencoder.heads.slide.model import SlideModel
from pathencoder.heads.slide.table import EVENT
from pathencoder.images import Key
from pathencoder.pretrained.derived import base_model_lines
from pathencoder.stream import OnError

log = logging.getLogger(__name__)
TASK = "slide survival"


@dataclass(frozen=True)
class SurvivalReport:
    """How well risks order the times to an event.

    Attributes:
        head: Kind of head.
        encoder: The encoder of the features.
        part: What was evaluated: "5 folds by group", or the name of a held-out part.
        unit: "slides" or "patients".
        count: How many.
        events: How many of them had an event.
        groups: Evaluated groups; None where they are not known.
        concordance: Harrell's index: 0.5 is chance, 1 a perfect order. On folds, pairs of one fold.
        settings: What was chosen or given.
        notes: What a reader has to know, as sentences.
    """

    head: str
    encoder: str
    part: str
    unit: str
    count: int
    events: int
    groups: int | None
    concordance: Figure
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The report for reading."""
        groups = "" if self.groups is None else f" of {self.groups:,} groups"
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [
            f"{self.head} head for survival on {self.encoder}, {settings}",
            f"evaluated on {self.part}: {self.count:,} {self.unit}{groups}, {self.events:,} events",
            f"  concordance  {self.concordance}",
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a figure that is not defined is null."""
        found = dataclasses.asdict(self)
        value = found["concordance"]["value"]
        found["concordance"]["value"] = None if math.isnan(value) else value
        return found


def read_report(content: dict[str, Any] | None) -> SurvivalReport | None:
    """The report that `to_json` wrote; None for none."""
    if content is None:
        return None
    figure = content["concordance"]
    value = math.nan if figure["value"] is None else figure["value"]
    return SurvivalReport(
        **{
            **content,
            "concordance": Figure(value, figure["low"], figure["high"]),
            "notes": tuple(content["notes"]),
        }
    )


@dataclass(frozen=True)
class Risks:
    """Risks of slides or patients, in order.

    Attributes:
        keys: File names without suffix, or patients.
        risks: Log of the hazard relative to another slide, float64 [N]; NaN where a slide cannot be
            used. Only differences mean something.
        errors: Why a slide cannot be used, by key.
    """

    keys: list[Key]
    risks: Floats
    errors: dict[Key, str]


@dataclass
class SurvivalHead(FeatureHead):
    """A risk for each slide; `pathencoder.fit(..., time=, event=)` and `load_head` return it.

    Attributes:
        kind: "abmil", "slide-mean" or "slide-max".
        model: Bags of tiles to risks.
        record: What the feature files state about their encoder.
        settings: What was chosen or given, as JSON values.
        report: What it reaches on slides that it was not fitted on. None: nothing was evaluated.
        held_out: The same on the part that `fit(evaluate=...)` named.
    """

    settings: dict[str, Any]
    report: SurvivalReport | None = None
    held_out: SurvivalReport | None = None

    def predict(
        self,
        features: Files,
        *,
        patients: Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> Risks:
        """The risks of slides.

        Args:
            features: A feature file, a list of them, or a folder of them, in any layout.
            patients: The patient of each file: all slides of a patient get one risk.
            on_error: "raise" stops at the first file that cannot be used; "nan" gives it no risk.

        Returns:
            Risks; the larger, the earlier an event is expected.

        Raises:
            StoreError: A file cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: A slide has no tiles, or a setting does not fit.
        """
        keys, scores, errors = self.scores(features, patients, on_error)
        return Risks(keys, scores[:, 0], errors)

    def _content(self, *, for_hub: bool) -> store.Content:
        del for_hub  # nothing of this machine is recorded
        config = {
            "task": TASK,
            "head": self.kind,
            "encoder": self.record.to_json(),
            "settings": self.settings,
        }
        reports = store.reports_of(self.report, self.held_out)
        return store.Content(config, self.model.arrays(), reports, self._card())

    def _card(self) -> str:
        front = base_model_lines(self.record.repo or self.record.name)
        shown = store.text_of(self.report, self.held_out)
        use = [
            "```python",
            "import pathencoder",
            "",
            'head = pathencoder.load_head("THIS FOLDER OR REPOSITORY")',
            'found = head.predict("features/")  # feature files of `pathencoder encode`',
            "found.keys, found.risks",
            "```",
        ]
        title = f"A head for survival by slide ({self.kind}) on the features of {self.record.name}"
        return store.card(front, title, ["\n".join(use), f"```text\n{shown}\n```"])


def fit(
    model: type[SlideModel], ready: Prepared, how: SlideFitting, evaluate: str | None
) -> SurvivalHead:
    """Fit a head for survival.

    Args:
        model: The kind of head.
        ready: The slides, with times.
        how: The settings.
        evaluate: The held-out part to evaluate on once the head is fitted.

    Returns:
        The head, with its report.

    Raises:
        ConfigError: Folds are needed, and not possible.
    """
    with counted(ready, how) as bags:
        settings = judge.chosen(model, bags, ready.train, how.options)
        head = SurvivalHead(model.kind, model.fit(bags, settings), ready.read.record, settings)
        if ready.folds is None:
            for note in [*ready.notes, "no folds by group are possible: nothing was evaluated"]:
                log.warning("%s", note)
        else:
            head.report = _on_folds(head, model, bags, ready, ready.folds, how)
    if evaluate is not None:
        part = part_of(ready.read.data, evaluate)
        rows = ready.read.data.rows_of(evaluate)
        assert ready.read.times is not None
        risks = head.model.logits(of_part(ready.read, evaluate))[:, 0]
        notes = ready.read.data.notes
        head.held_out = _report(head, part, risks, ready.read.times[rows], None, evaluate, notes)
    return head


def _on_folds(
    head: SurvivalHead,
    model: type[SlideModel],
    bags: Bags,
    ready: Prepared,
    folds: judge.Named,
    how: SlideFitting,
) -> SurvivalReport:
    """The report on folds; settings are chosen again without each fold."""
    assert bags.times is not None
    risks, fold_of = np.zeros(len(bags.y)), np.zeros(len(bags.y), np.int64)
    notes = list(ready.notes)
    for number, (fitted, held_out) in enumerate(folds.pairs):
        inner = bags.take(fitted)
        try:
            settings = model.choose(inner, how.options)
        except NoFolds:
            settings = head.settings
            notes.append("settings were chosen once, with the folds that are evaluated here")
        risks[held_out] = model.fit(inner, settings).logits(bags.x[held_out])[:, 0]
        fold_of[held_out] = number
    said = list(dict.fromkeys(notes))
    return _report(head, ready.train, risks, bags.times, fold_of, folds.name, said)


def _report(
    head: SurvivalHead,
    data: Dataset,
    risks: Floats,
    times: Floats,
    folds: Ints | None,
    part: str,
    notes: Sequence[str],
) -> SurvivalReport:
    events = np.array([label == EVENT for label in data.labels])
    index = Concordance(risks, times, events, folds)
    said = list(notes)
    try:
        figure = Figure(index(np.arange(len(risks))))
    except ConfigError as error:
        figure = Figure(math.nan)
        said.append(str(error))
    if data.groups is None:
        said.append(
            f"no groups (patients) are known: {data.unit} of one patient may be both fitted on and"
            " evaluated, which makes figures too good, and no interval is claimed"
        )
    elif not math.isnan(figure.value):
        found = metrics.grouped_bootstrap(index, data.groups)
        figure = Figure(figure.value, found.low, found.high)
    return SurvivalReport(
        head=head.kind,
        encoder=head.record.label(),
        part=part,
        unit=data.unit,
        count=len(risks),
        events=int(events.sum()),
        groups=None if data.groups is None else len(set(data.groups)),
        concordance=figure,
        settings=head.settings,
        notes=tuple(said),
    )
