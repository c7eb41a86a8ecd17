"""A fitted slide head: feature files to classes, and the weight of each tile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads import store
from pathencoder.heads.classifier import class_numbers, kept_of, part_of
from pathencoder.heads.data.dataset import Dataset, split_name
from pathencoder.heads.predictions import Predictions, predictions
from pathencoder.heads.report import Report, evaluated
from pathencoder.heads.rows import Floats, softmax
from pathencoder.heads.slide.bags import Tiles, read_bags
from pathencoder.heads.slide.base import FeatureHead, Files
from pathencoder.heads.slide.table import Columns, read_slides
from pathencoder.pretrained.derived import base_model_lines
from pathencoder.stream import OnError


@dataclass
class SlideHead(FeatureHead):
    """A classifier of slides by the features of their tiles.

    `pathencoder.fit` and `load_head` return it.

    Attributes:
        kind: "abmil", "slide-mean" or "slide-max".
        classes: The names of the classes, in the order of the probabilities.
        model: Bags of tiles to scores.
        record: What the feature files state about their encoder.
        settings: What was chosen or given, as JSON values.
        temperature: Scores are divided by it before they become probabilities.
        threshold: The probability of the label below which it abstains. None: it never does.
        report: What it reaches on slides that it was not fitted on. None: nothing was evaluated.
        held_out: The same on the part that `fit(evaluate=...)` named.
        notes: What a fit without folds left out or assumed; with folds the report says so.
    """

    classes: tuple[str, ...]
    settings: dict[str, Any]
    temperature: float = 1.0
    threshold: float | None = None
    report: Report | None = None
    held_out: Report | None = None
    notes: tuple[str, ...] = ()

    def predict(
        self,
        features: Files,
        *,
        patients: Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> Predictions:
        """Predict the classes of slides.

        Args:
            features: A feature file, a list of them, or a folder of them, in any layout.
            patients: The patient of each file: all slides of a patient get one prediction, as
                `fit(bag="patient")` does. None: a prediction a file.
            on_error: "raise" stops at the first file that cannot be used; "nan" gives it no label
                and says why in `errors`.

        Returns:
            Labels, probabilities and abstentions. The keys are file names without suffix, or
            patients.

        Raises:
            StoreError: A file cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: A slide has no tiles, or a setting does not fit.
        """
        keys, logits, errors = self.scores(features, patients, on_error)
        table = softmax(logits / self.temperature)
        return predictions(keys, self.classes, table, self.threshold, errors)

    def probabilities(self, tiles: Tiles) -> Floats:
        """The probabilities [C] of a slide with these tiles, float32 [N, D] of its encoder."""
        found: Floats = softmax(self.model.logits([tiles]) / self.temperature)[0]
        return found

    def tile_scores(self, file: str | os.PathLike[str]) -> tuple[NDArray[Any] | None, Floats]:
        """The probabilities of each tile as if it were a slide of its own: where a class is seen.

        They are not calibrated: tiles have no labels.

        Args:
            file: The feature file of the slide.

        Returns:
            Coordinates as in `attention`, and float64 [N, C].

        Raises:
            StoreError: The file cannot be read.
            HeadMismatch: The features are of another encoder.
            ConfigError: The slide has no tiles.
        """
        found = self.read(file)
        return found.coords, softmax(self.model.tile_logits(found.rows))

    def evaluate(
        self,
        table: str | os.PathLike[str],
        *,
        features: str | os.PathLike[str],
        part: str | None = None,
        columns: Columns | None = None,
    ) -> Report:
        """Evaluate on slides that the head was not fitted on.

        Args:
            table: A CSV with a row a slide, as for `pathencoder.fit`.
            features: The folder of their feature files.
            part: The part to evaluate: "test" for example. None: all slides.
            columns: Of the table. None: found by their names.

        Returns:
            Figures with intervals.

        Raises:
            ConfigError: The table or feature files are bad, or it has classes that the head does
                not know.
            HeadMismatch: The features are of another encoder.
        """
        slides = read_slides(table, features, columns or Columns())
        parts, named = {slides.data.part(row) for row in range(len(slides.data))}, "all slides"
        if part is not None:
            part_of(slides.data, part)
            named = split_name(part)
            parts = {named}
        read = read_bags(slides, parts, bag=self.settings["bag"], skip_bad=False, seed=0)
        self.record.check_record(read.record)
        return self.evaluate_bags(read.data, read.x, named, read.data.notes)

    def evaluate_bags(
        self, data: Dataset, x: Sequence[Tiles], part: str, notes: Sequence[str] = ()
    ) -> Report:
        """Evaluate on bags whose features were read; `part` is their name in the report.

        Raises:
            ConfigError: They have classes that the head does not know.
        """
        if unknown := sorted(set(data.classes) - set(self.classes)):
            raise ConfigError(
                f"the head knows {', '.join(self.classes)}, not {', '.join(unknown)}: evaluate on"
                " these classes"
            )
        probabilities = softmax(self.model.logits(x) / self.temperature)
        numbers = class_numbers(data.labels, self.classes)
        return evaluated(
            probabilities,
            numbers,
            data.groups,
            self.classes,
            head=self.kind,
            encoder=self.record.label(),
            part=part,
            settings=self.settings,
            abstention=kept_of(self.report, self.threshold, probabilities, numbers),
            notes=notes,
            unit=data.unit,
        )

    def _content(self, *, for_hub: bool) -> store.Content:
        del for_hub  # nothing of this machine is recorded
        config = {
            "task": "slide classification",
            "head": self.kind,
            "classes": list(self.classes),
            "encoder": self.record.to_json(),
            "settings": self.settings,
            "temperature": self.temperature,
            "threshold": self.threshold,
        }
        reports = store.reports_of(self.report, self.held_out, self.notes)
        return store.Content(config, self.model.arrays(), reports, self._card())

    def _card(self) -> str:
        front = base_model_lines(self.record.repo or self.record.name)
        shown = store.text_of(self.report, self.held_out, self.notes)
        scale = "" if self.record.mpp is None else f" at {self.record.mpp:g} um/px"
        encoder = f"Features: {self.record.label()}, tiles read{scale}."
        use = [
            "```python",
            "import pathencoder",
            "",
            'head = pathencoder.load_head("THIS FOLDER OR REPOSITORY")',
            'found = head.predict("features/")  # feature files of `pathencoder encode`',
            "found.labels, found.probabilities, found.abstained",
            "```",
        ]
        title = f"A head for slides ({self.kind}) on the features of {self.record.name}"
        parts = [f"Classes: {', '.join(self.classes)}.", encoder, "\n".join(use)]
        return store.card(front, title, [*parts, f"```text\n{shown}\n```"])
