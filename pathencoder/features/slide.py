"""One slide to feature files: tissue, grid, tiles, embeddings.

A slide is prepared (opened, its tissue found, its grid planned) and then encoded, so that the next
slide can be prepared while one is encoded. Several encoders share the slide, its tissue, and the
tiles where their grids are equal; each writes its own file. A run that stops is resumed by the next
one. A tile that cannot be read is listed; the others are embedded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.features.before import done_before
from pathencoder.features.continued import with_runtime_of
from pathencoder.features.finished import slide_facts
from pathencoder.features.identity import Origin, identify_slide, refuse_input
from pathencoder.features.job import Outcome, Progress, partial_path, silent
from pathencoder.features.journal import refuse_busy, remove_remains
from pathencoder.features.parts import Part, encode_parts
from pathencoder.features.plan import plan_slide, scale_of
from pathencoder.features.provenance import Settings, slide_provenance
from pathencoder.files import make_folder
from pathencoder.locks import Busy
from pathencoder.pace import Pace
from pathencoder.slides.overlay import write_overlay
from pathencoder.slides.own_picture import may_replace, notes_on
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.slides.tissue_file import keep_or_write_tissue
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

OnNotes = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class SlideTask:
    """What is to be done with one slide.

    Attributes:
        source: The slide.
        files: The feature file of each encoder.
        settings: How to encode.
        picture: A .jpg or .png of the tissue and the tiles, drawn where it does not exist.
        outlines: A .geojson of the tissue, written where it does not exist.
        origin: Where a remote slide is from; `source` is its copy here.
    """

    source: Path
    files: tuple[Path, ...]
    settings: Settings
    picture: Path | None = None
    outlines: Path | None = None
    origin: Origin | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether the picture and the outlines exist or were not asked for."""
        return all(f is None or f.exists() for f in (self.picture, self.outlines))

    def kept_pictures(self) -> list[str]:
        """A note where the picture is a file that pathencoder did not draw."""
        if self.picture is None:
            return []
        return notes_on(self.picture, overwrite=self.settings.overwrite)


@dataclass
class Prepared:
    """A slide that is ready to be encoded. `close` it if it is not.

    Attributes:
        task: What is to be done.
        parts: The share of each encoder.
        slide: The open slide; None where there is nothing to do.
        identity: Of the slide, as `finished.slide_facts` gives it.
        notes: On the slide's scale and pixels.
        error: Why it cannot be encoded; raised when it is its turn.
    """

    task: SlideTask
    parts: list[Part]
    slide: Slide | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: Exception | None = None

    @property
    def was_busy(self) -> bool:
        """Whether another process wrote one of the files when the slide was prepared."""
        return any(isinstance(part.result, Busy) for part in self.parts)

    def close(self) -> None:
        """Close the slide."""
        if self.slide is not None:
            self.slide.close()
            self.slide = None


def slide_to_file(
    encoder: Encoder,
    source: Path,
    file: Path,
    settings: Settings,
    *,
    picture: Path | None = None,
    outlines: Path | None = None,
    progress: Progress = silent,
    on_notes: OnNotes = lambda _: None,
    origin: Origin | None = None,
) -> Outcome:
    """Embed the tissue tiles of one slide into a feature file; resume an earlier run.

    Args:
        encoder: The encoder.
        source: The slide.
        file: The feature file.
        settings: How to encode.
        picture: As in `SlideTask`, as is the next.
        outlines: A .geojson of the tissue.
        progress: Called with (done, total) in tiles.
        on_notes: Called once with the notes on the slide's scale and pixels, before any tile is
            embedded; not for a slide that is done.
        origin: Where a remote slide is from; `source` is its copy here.

    Returns:
        The status, the file, the number of rows, the tiles that failed (also listed in the file)
        and all notes. A slide without tissue gives a file without rows.

    Raises:
        SlideError: The slide, or every tile of it, cannot be read; or its background is dark, as in
            fluorescence.
        MissingMpp: The slide does not say its scale.
        Mismatch: The file is of another slide or of other settings, or it is damaged.
        Busy: Another process is writing the file.
        StoreError: The file cannot be written.
        ConfigError: The settings do not fit the encoder.
    """
    task = SlideTask(source, (file,), settings, picture, outlines, origin)
    return slide_to_files([encoder], task, progress=progress, on_notes=on_notes)[0]


def slide_to_files(
    encoders: Sequence[Encoder],
    task: SlideTask,
    *,
    progress: Progress = silent,
    on_notes: OnNotes = lambda _: None,
) -> list[Outcome]:
    """Embed the tissue tiles of one slide with several encoders in one pass.

    Args:
        encoders: One for each file of the task.
        task: What is to be done.
        progress: As for `slide_to_file`, as is the next.
        on_notes: Called with the notes.

    Returns:
        The outcome of each encoder, as `slide_to_file` returns it.

    Raises:
        PathEncoderError: As for `slide_to_file`; the first one, once every encoder is done that can
            be.
    """
    prepared = prepare_slide(encoders, task)
    results = encode_prepared(encoders, prepared, progress=progress, on_notes=on_notes)
    made = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        made.append(result)
    return made


def prepare_slide(encoders: Sequence[Encoder], task: SlideTask) -> Prepared:
    """Open a slide, find its tissue and plan its grids, where there is anything to do.

    Nothing is written and no tile is read. Errors are kept for `encode_prepared`.

    Args:
        encoders: The encoders, one for each file of the task.
        task: What is to be done.

    Raises:
        ConfigError: The picture would replace the slide.
    """
    if task.picture is not None:
        refuse_input(task.picture, task.source)
    parts = [_look(*both, task) for both in zip(encoders, task.files, strict=True)]
    made = Prepared(task, parts)
    finished_parts = [part.result is not None for part in parts]
    refused = all(isinstance(part.result, Exception) for part in parts)
    if refused or (all(finished_parts) and task.is_drawn):
        return made
    try:
        made.slide = open_slide(task.source)
        made.identity = slide_facts(identify_slide(made.slide.path, task.origin))
        _plan(encoders, made, made.slide)
    except Exception as error:
        made.error = error
        made.close()
    return made


def encode_prepared(
    encoders: Sequence[Encoder],
    prepared: Prepared,
    *,
    progress: Progress = silent,
    on_notes: OnNotes = lambda _: None,
    pace: Pace | None = None,
) -> list[Outcome | Exception]:
    """Encode a slide that was prepared, and close it.

    Args:
        encoders: As for `prepare_slide`; those of another device may take their place.
        prepared: The slide.
        progress: As for `slide_to_file`.
        on_notes: As for `slide_to_file`.
        pace: Where the times are counted.

    Returns:
        For each encoder its outcome, or the error that concerns its file alone.

    Raises:
        PathEncoderError: As for `slide_to_file`, where the error concerns all files.
    """
    started = time.monotonic()
    task, slide, pace = prepared.task, prepared.slide, pace or Pace()
    try:
        if any(part.result is None for part in prepared.parts):
            on_notes(prepared.notes)
        if prepared.error is not None:
            raise prepared.error
        if slide is not None:
            for group in _same_tiles(encoders, prepared.parts):
                encode_parts(
                    group, slide, task.settings, task.origin, prepared.identity, progress, pace
                )
            _draw(task, prepared.parts)
    finally:
        prepared.close()
    results: list[Outcome | Exception] = []
    for part in prepared.parts:
        assert part.result is not None
        if isinstance(part.result, Outcome):
            part.result.source = task.source
            part.result.seconds = time.monotonic() - started
            part.result.picture = task.picture
            part.result.notes += task.kept_pictures()
            part.result.pace = pace
            if slide is not None:
                _note_reader(part.result, slide.reader)
        results.append(part.result)
    return results


def _look(encoder: Encoder, file: Path, task: SlideTask) -> Part:
    """What an earlier run has left of an encoder's file."""
    part = Part(file)
    try:
        made = slide_provenance(encoder, task.settings)
        part.provenance = with_runtime_of(file, made, task.settings)
        part.result = done_before(task.source, file, part.provenance, task.settings, task.origin)
        if part.result is None:
            refuse_busy(partial_path(file))
        else:
            remove_remains(partial_path(file))
    except Exception as error:
        part.result = error
    return part


def _plan(encoders: Sequence[Encoder], made: Prepared, slide: Slide) -> None:
    """Plan the tiles of each part; the tissue is found once."""
    settings, tissue = made.task.settings, None
    for encoder, part in zip(encoders, made.parts, strict=True):
        refused = isinstance(part.result, Exception)
        if refused or (part.result is not None and made.task.is_drawn):
            continue
        scale = scale_of(encoder.spec, slide, settings)
        if part.result is None:
            made.notes += [note for note in scale.notes if note not in made.notes]
        part.plan = plan_slide(encoder.spec, slide, scale, settings, tissue)
        tissue = part.plan.tissue if settings.coords is None else None


def _same_tiles(
    encoders: Sequence[Encoder], parts: Sequence[Part]
) -> list[list[tuple[Encoder, Part]]]:
    """The parts that are to be done, those with the same tiles together."""
    groups: dict[Any, list[tuple[Encoder, Part]]] = {}
    for encoder, part in zip(encoders, parts, strict=True):
        if part.result is None and part.plan is not None:
            grid = part.plan.grid
            key = (grid.side, grid.stride, grid.tile_px, encoder.spec.interpolation)
            groups.setdefault(key, []).append((encoder, part))
    return list(groups.values())


def _draw(task: SlideTask, parts: Sequence[Part]) -> None:
    """Write the outlines and the picture, of the first encoder that has a grid."""
    made = [part for part in parts if isinstance(part.result, Outcome) and part.plan]
    if not made or (plan := made[0].plan) is None:
        return
    overwrite = task.settings.overwrite
    if task.outlines is not None:
        make_folder(task.outlines.parent)
        drawn = task.settings.tissue
        kept = keep_or_write_tissue(plan.tissue, task.outlines, drawn=drawn, overwrite=overwrite)
        for part in made:
            if isinstance(part.result, Outcome) and part.result.status != "before":
                part.result.notes += kept
    if task.picture is not None and may_replace(task.picture, overwrite=overwrite):
        make_folder(task.picture.parent)
        write_overlay(plan.tissue, plan.grid, task.picture, title=printable(task.source.name))


def _note_reader(outcome: Outcome, reader: str) -> None:
    """Note where the rows of an earlier run are another reader's than the slide's now."""
    if outcome.status == "before" and outcome.reader and outcome.reader != reader:
        outcome.notes.append(f"its tiles were read with {outcome.reader}; {reader} opens it now")
