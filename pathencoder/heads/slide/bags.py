"""The features of slides in memory, checked as a whole before anything is fitted."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.std import tqdm

from pathencoder.errors import ConfigError, MissingExtra, PathEncoderError
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.heads.data.check import bad_labels, listed
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.rows import Floats, Ints, weights_of
from pathencoder.heads.slide.options import PATIENT
from pathencoder.heads.slide.record import FeatureRecord
from pathencoder.heads.slide.table import Slides
from pathencoder.walk import printable

Tiles = NDArray[np.float32]  # the features of a bag, [N, D]
MEMORY = 4 << 30  # bytes of features that are kept; beyond it a random part of each slide's tiles


@dataclass(frozen=True)
class Bags:
    """Bags of tiles with their classes.

    Attributes:
        x: The features of each bag, an array of objects [B], each float32 [N, D].
        y: Class numbers [B].
        groups: Group numbers [B]; every bag is a group of its own where none are known.
        classes: Number of classes.
        class_weights: Of each class [C]. None: so that every class weighs the same.
        seed: Of random numbers.
        device: Where to train.
        trained: Called after each network that was trained.
        times: For survival: of each bag [B]; `y` is then 1 for an event, 0 for a last observation.
    """

    x: NDArray[np.object_]
    y: Ints
    groups: Ints
    classes: int
    class_weights: Floats | None
    seed: int
    device: str = "auto"
    trained: Callable[[], object] = lambda: None
    times: Floats | None = None

    @property
    def weights(self) -> Floats:
        """The weight of each bag [B], 1 in the mean."""
        return weights_of(self.y, self.classes, self.class_weights)

    def take(self, rows: Ints) -> Bags:
        """The same with these bags alone."""
        times = None if self.times is None else self.times[rows]
        return dataclasses.replace(
            self, x=self.x[rows], y=self.y[rows], groups=self.groups[rows], times=times
        )


@dataclass(frozen=True)
class Read:
    """Slides whose features were read.

    Attributes:
        data: A row a bag: a slide, or a patient.
        x: The features of each bag.
        record: The encoder that all files state.
        times: For survival: of each bag.
    """

    data: Dataset
    x: list[Tiles]
    record: FeatureRecord
    times: Floats | None = None


def read_bags(
    slides: Slides,
    parts: Collection[str],
    *,
    bag: str,
    skip_bad: bool,
    seed: int,
    memory: int = MEMORY,
    hidden: bool | None = True,
) -> Read:
    """Read the features of slides, and check them with the labels of the whole table.

    Args:
        slides: The table.
        parts: The parts that are read; the feature files of others are not opened.
        bag: "slide" or "patient".
        skip_bad: Leave out slides whose features cannot be used, and note it.
        seed: Of the tiles that are kept where not all fit into memory.
        memory: Bytes of features that are kept.
        hidden: Show no progress; None: show it on a terminal alone.

    Raises:
        ConfigError: Labels or feature files are bad: the message lists every bad row. Or no slide
            is left.
    """
    data = slides.data
    rows = [row for row in range(len(data)) if data.part(row) in parts]
    files = _Files(len(rows), memory, seed)
    for row in tqdm(rows, desc="reading features", unit="slide", disable=hidden):
        files.read(row, Path(str(data.images[row])), slides.missing.get(row))
    record = files.check_records()
    bad = {row: f"{data.name(row)}: {why}" for row, why in sorted(files.bad.items())}
    of_labels = [*bad_labels(data), *slides.bad_times]
    of_labels += _two_labels(data, slides.times) if bag == PATIENT else ()
    if of_labels or (bad and not skip_bad):
        hint = "" if of_labels else "\non_error='skip' (--skip-bad) leaves these slides out"
        raise ConfigError(listed([*of_labels, *bad.values()], "nothing was fitted") + hint)
    good = [row for row in rows if row not in bad]
    if not good or record is None:
        raise ConfigError(listed(list(bad.values()) or ["it holds no slides"], "nothing is left"))
    notes = [*data.notes, *files.notes(record)]
    if bad:
        one = next(iter(bad.values()))
        notes.append(f"{len(bad):,} slides were left out, the first: {one}")
    kept = dataclasses.replace(data.take(good), notes=tuple(notes))
    times = None if slides.times is None else slides.times[good]
    read = Read(kept, [files.x[row] for row in good], record, times)
    return _by_patient(read) if bag == PATIENT else read


def _by_patient(read: Read) -> Read:
    """One bag a patient: all tiles of all slides."""
    members = _members(read.data)
    first = [rows[0] for rows in members.values()]
    where = tuple(f"patient {printable(group)}" for group in members)
    return Read(
        dataclasses.replace(read.data.take(first), where=where, unit="patients"),
        [np.concatenate([read.x[row] for row in rows]) for rows in members.values()],
        read.record,
        None if read.times is None else read.times[first],
    )


class _Files:
    """The feature files of a table: what was read, and what is wrong."""

    def __init__(self, count: int, memory: int, seed: int) -> None:
        self.x: dict[int, Tiles] = {}
        self.bad: dict[int, str] = {}
        self._count, self._memory, self._seed = count, memory, seed
        self._records: dict[int, FeatureRecord] = {}
        self._layouts: Counter[str] = Counter()
        self._most = 0  # tiles of a slide that are kept
        self._tiles = 0  # of all slides

    def read(self, row: int, file: Path, missing: str | None) -> None:
        """Read one file, or note why its features cannot be used."""
        if missing is not None:
            self.bad[row] = missing
            return
        try:
            found = read_features(file)
        except MissingExtra:
            raise
        except PathEncoderError as error:
            self.bad[row] = str(error)
            return
        if why := unusable(found):
            self.bad[row] = why
            return
        self._records[row] = FeatureRecord.of(found)
        self._layouts[found.layout] += 1
        self._tiles += len(found.rows)
        self.x[row] = self._part(found.rows, row)

    def check_records(self) -> FeatureRecord | None:
        """The record of most files; those of another encoder are bad. None where none is good."""
        if not self._records:
            return None
        counts = Counter(self._records.values())
        # of equals, the first: the same table gives the same answer
        record = max(counts, key=lambda one: counts[one])
        for row, theirs in self._records.items():
            if different := record.difference(theirs):
                self.bad[row] = f"features of another kind: {different} as of most slides"
        return record

    def notes(self, record: FeatureRecord) -> list[str]:
        """What a reader of the report has to know."""
        notes = list[str]()
        if not record.is_known:
            notes.append(
                f"the feature files do not state which weights made them ({record.name}): a file of"
                " another encoder with rows of the same length cannot be distinguished"
            )
        if len(self._layouts) > 1:
            notes.append(f"feature files of several layouts: {', '.join(sorted(self._layouts))}")
        rounded = sum(r.rounded is not None for r in self._records.values())
        if 0 < rounded < len(self._records):
            notes.append(f"the features of {rounded:,} slides are rounded to float16")
        kept = sum(len(x) for x in self.x.values())
        if kept < self._tiles:
            notes.append(
                f"{kept:,} of {self._tiles:,} tiles were fitted on, at most {self._most:,} of a"
                " slide drawn at random: all of them do not fit into"
                f" {self._memory / (1 << 30):.3g} GB of memory"
            )
        return notes

    def _part(self, rows: Tiles, row: int) -> Tiles:
        """All rows, or as many as there is room for."""
        if not self._most:
            self._most = max(1, self._memory // (self._count * 4 * rows.shape[1]))
        if len(rows) <= self._most:
            return rows
        random = np.random.default_rng((self._seed, row))
        drawn = random.choice(len(rows), self._most, replace=False)
        return np.ascontiguousarray(rows[np.sort(drawn)])


def unusable(found: FeatureFile) -> str:
    """Why the rows of a feature file cannot be used; "" where they can."""
    if found.rows.ndim != 2:
        return "maps (output 'dense') in place of one vector a tile: encode without --output dense"
    if not len(found.rows):
        return "no tiles: no tissue was found on this slide"
    bad = int((~np.isfinite(found.rows)).any(1).sum())
    if bad:
        return f"{bad:,} of {len(found.rows):,} rows hold NaN or infinity: encode the slide again"
    return ""


def as_objects(x: Sequence[Tiles]) -> NDArray[np.object_]:
    """Bags as an array of objects [B]."""
    found = np.empty(len(x), object)
    found[:] = list(x)
    return found


def _two_labels(data: Dataset, times: Floats | None) -> list[str]:
    """What is wrong with a table whose patients get one label, or one time, each."""
    if data.groups is None:
        return ["bag='patient' needs a column patient (case, group): the table has none"]
    bad = []
    for group, rows in _members(data).items():
        labels: dict[str, int] = {}
        for row in rows:
            labels.setdefault(data.labels[row], row)
        if len(labels) > 1:
            named = (f"{label} ({data.name(row)})" for label, row in labels.items())
            bad.append(f"patient {group!r} has several labels: {' and '.join(named)}")
        elif times is not None and len(set(times[rows].tolist())) > 1:
            bad.append(f"patient {group!r} has several times: {data.name(rows[0])} and others")
    return bad


def _members(data: Dataset) -> dict[str, list[int]]:
    """The rows of each patient."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(data.groups or ()):
        rows[group].append(row)
    return rows
