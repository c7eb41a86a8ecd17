"""A fitted classifier: a head that knows its encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pathencoder import stream as streams
from pathencoder.errors import ConfigError, HeadMismatch
from pathencoder.heads import store
from pathencoder.heads.adapt import seen
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.calibration import Abstention, abstention_at
from pathencoder.heads.data.dataset import Dataset, split_name
from pathencoder.heads.data.read import Data, Groups, Labels, read_dataset
from pathencoder.heads.digest import digest_of
from pathencoder.heads.embed import Embedded, embed
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.predictions import Predictions, predictions
from pathencoder.heads.report import Report, evaluated
from pathencoder.heads.rows import Floats, Ints, Model, softmax
from pathencoder.heads.saved import SavedHead
from pathencoder.images import Images, Item, Key, survey
from pathencoder.mpp import check_mpp
from pathencoder.pretrained.derived import base_model_lines
from pathencoder.stream import OnError, Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


@dataclass
class Classifier(SavedHead):
    """A classifier on the embeddings of an encoder; `pathencoder.fit` and `load_head` return it.

    Attributes:
        kind: "linear", "mlp", "knn" or "prototypes".
        classes: The names of the classes, in the order of the probabilities.
        model: Embeddings to scores.
        record: The encoder that it was fitted on, and how that was read.
        settings: What was chosen or given, as JSON values.
        temperature: Scores are divided by it before they become probabilities.
        threshold: The probability of the label below which it abstains. None: it never does.
        report: What it reaches on images that it was not fitted on. None: nothing was evaluated.
        held_out: The same on the part that `fit(evaluate=...)` named.
        notes: What a fit without folds left out or assumed; with folds the report says so.
    """

    kind: str
    classes: tuple[str, ...]
    model: Model
    record: EncoderRecord
    settings: dict[str, Any]
    temperature: float = 1.0
    threshold: float | None = None
    report: Report | None = None
    held_out: Report | None = None
    notes: tuple[str, ...] = ()
    _encoder: Encoder | None = field(default=None, repr=False)
    _device: str = field(default="auto", repr=False)  # of an encoder that is loaded later

    @property
    def encoder(self) -> Encoder:
        """The encoder; loaded on first use where the head was loaded without one.

        Raises:
            HeadMismatch: It cannot be loaded, or is no longer the one that the head was fitted on.
        """
        if self._encoder is None:
            self._encoder = self.record.load(self._device)
        self.record.check(self._encoder)
        return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Use an encoder that is loaded already.

        Raises:
            HeadMismatch: The head was fitted on another one.
        """
        self.record.check(encoder)
        self._encoder = encoder

    def predict(
        self,
        images: Images,
        *,
        mpp: float | None = None,
        on_error: OnError = "raise",
        progress: Progress = "auto",
    ) -> Predictions:
        """Predict the classes of images.

        Args:
            images: In any form that `Encoder.encode` takes: a folder, paths, arrays, PIL images.
            mpp: Their micrometres per pixel. None: the scale of the images that the head was fitted
                on.
            on_error: "raise" stops at the first image that cannot be read; "nan" gives it no label
                and says why in `errors`.
            progress: As for `Encoder.encode`.

        Returns:
            Labels, probabilities and abstentions, in order.

        Raises:
            ImageError: An image cannot be read.
            ConfigError: A setting does not fit.
            HeadMismatch: The encoder is not the one that the head was fitted on.
        """
        scale = self._scale(mpp)
        if on_error not in ("raise", "nan"):
            raise ConfigError(f"on_error={on_error!r}: 'raise' or 'nan'")
        encoder = self.encoder
        items, total = survey(images)
        keys: list[Key] = []
        errors: dict[Key, str] = {}
        found = encoder.results(_noted(items, keys), mpp=scale, settings=self.record.settings())
        table = streams.Table(total)
        watched = streams.watched(found, total, progress)  # type: ignore[arg-type]
        with contextlib.closing(watched):
            for number, result in enumerate(watched):
                if result.error is not None and on_error == "raise":
                    raise result.error
                if result.error is not None:
                    errors[keys[number]] = str(result.error)
                table.append(result.row)
        return self._predictions(keys, table.finish(self.record.dim), errors)

    def predict_rows(self, rows: ArrayLike) -> Predictions:
        """Predict the classes of embeddings, for example those of a feature file.

        Nothing says which encoder made them: `read_features(file).attributes` does.

        Args:
            rows: [N, D], of this head's encoder and readout.

        Returns:
            Predictions, whose keys are the numbers of the rows.

        Raises:
            HeadMismatch: The rows have another length than those that the head was fitted on.
        """
        x = np.asarray(rows, np.float64)
        return self._predictions(list(range(len(x))), x, {})

    def evaluate(
        self,
        data: Data,
        *,
        part: str | None = None,
        labels: Labels = None,
        groups: Groups = None,
        splits: Labels = None,
        cache: bool = True,
        progress: Progress = "auto",
    ) -> Report:
        """Evaluate on labelled images that the head was not fitted on.

        Args:
            data: As for `pathencoder.fit`, as are `labels`, `groups` and `splits`.
            part: The part to evaluate: "test" for example. None: all images.
            labels: The classes.
            groups: Patients, slides or cases: intervals are over them.
            splits: The parts.
            cache: Keep the rows on disk.
            progress: As for `Encoder.encode`.

        Returns:
            Figures with intervals.

        Raises:
            ConfigError: The data set has bad rows, or classes that the head does not know.
            ImageError: An image cannot be read.
        """
        read = read_dataset(data, labels=labels, groups=groups, splits=splits)
        chosen = read if part is None else part_of(read, part)
        if unknown := sorted(set(chosen.classes) - set(self.classes)):
            raise ConfigError(
                f"the head knows {', '.join(self.classes)}, not {', '.join(unknown)}: evaluate on"
                " these classes"
            )
        found = embed(
            self.encoder,
            self.record,
            chosen.images,
            [chosen.name(row) for row in range(len(chosen))],
            cache=FeatureCache.default() if cache else None,
            progress=progress,
        )
        for error in found.errors.values():
            raise error
        return self.evaluate_rows(chosen, found, chosen.part(0) if part else "all images")

    def evaluate_rows(
        self, data: Dataset, found: Embedded, part: str, notes: Sequence[str] = ()
    ) -> Report:
        """Evaluate on images of known classes that were embedded.

        Args:
            data: The images, a checked data set.
            found: Their rows, all of which could be read.
            part: Their name in the report.
            notes: For the report.

        Returns:
            Figures with intervals.

        Raises:
            ConfigError: Embeddings are not finite.
        """
        numbers = class_numbers(data.labels, self.classes)
        probabilities = self._probabilities(found.rows.astype(np.float64))
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
            notes=(*notes, *seen.notes(self.encoder, found.contents)),
        )

    def digest(self) -> str:
        """A hash of all that predictions depend on."""
        return digest_of(self._content(for_hub=True))

    def _content(self, *, for_hub: bool) -> store.Content:
        config = {
            "task": "classification",
            "head": self.kind,
            "classes": list(self.classes),
            "encoder": self.record.to_json(with_folder=not for_hub),
            "settings": self.settings,
            "temperature": self.temperature,
            "threshold": self.threshold,
        }
        reports = store.reports_of(self.report, self.held_out, self.notes)
        return store.Content(config, self.model.arrays(), reports, self._card())

    def _card(self) -> str:
        front = base_model_lines(self.record.repo or self.record.name)
        shown = store.text_of(self.report, self.held_out, self.notes)
        use = [
            "```python",
            "import pathencoder",
            "",
            'head = pathencoder.load_head("THIS FOLDER OR REPOSITORY")',
            'found = head.predict("tiles/")',
            "found.labels, found.probabilities, found.abstained",
            "```",
        ]
        title = f"A {self.kind} head on {self.record.name}"
        parts = [f"Classes: {', '.join(self.classes)}.", "\n".join(use), f"```text\n{shown}\n```"]
        return store.card(front, title, parts)

    def _scale(self, mpp: float | None) -> float | None:
        fitted = self.record.image_mpp
        if mpp is None:
            return fitted
        if fitted is None:
            raise ConfigError(
                f"mpp={mpp!r}: the head was fitted on images that were resized whole, without their"
                " scale. Leave mpp out, or fit it with mpp="
            )
        return check_mpp(mpp)

    def _probabilities(self, x: Floats) -> Floats:
        return softmax(self.model.logits(x) / self.temperature)

    def _predictions(self, keys: list[Key], rows: Any, errors: dict[Key, str]) -> Predictions:
        x = np.asarray(rows, np.float64)
        length = self.record.dim
        if x.ndim != 2 or x.shape[1] != length:
            raise HeadMismatch(
                f"rows [N, {length}] of {self.record.label()} are needed, found {list(x.shape)}"
            )
        good = np.isfinite(x).all(1)
        probabilities = np.full((len(x), len(self.classes)), np.nan)
        if good.any():
            probabilities[good] = self._probabilities(x[good])
        return predictions(keys, self.classes, probabilities, self.threshold, errors)


def _noted(items: Iterator[Item], keys: list[Key]) -> Iterator[Item]:
    """The items, whose keys are put into a list."""
    for item in items:
        keys.append(item.key)
        yield item


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> Ints:
    """The number of each label [N] in the order of the classes."""
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[label] for label in labels], np.int64)


def kept_of(
    folds: Report | None, threshold: float | None, probabilities: Floats, y: Ints
) -> Abstention | None:
    """What the threshold that the folds set keeps of other images; None without one."""
    if folds is None or folds.abstention is None or threshold is None:
        return None
    return abstention_at(threshold, probabilities, y, folds.abstention.max_error)


def part_of(data: Dataset, part: str) -> Dataset:
    """The images of a part, which has several names: "val", "validation".

    Raises:
        ConfigError: The data set has no such part.
    """
    rows = data.rows_of(split_name(part))
    if not rows:
        parts = ", ".join(sorted({data.part(row) for row in range(len(data))}))
        raise ConfigError(f"the data set has no part {part!r}; it has {parts}")
    return data.take(rows)
