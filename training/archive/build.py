"""Make a manifest from sources, or add sources to one; what a person edited stays.

1. The manifest of before is read with a person's edits (store.py).
2. Every source lists its slides. A source that fails costs its own slides only; their rows stay.
3. Headers are read and files hashed where they lie here, unless size and time say that it was done.
4. Rows are made: measured columns are new, other columns keep what they have.
5. Splits by patient, evaluation sets out, names made unique; written, if nothing is wrong.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pathencoder.cores import available
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder, remove_incomplete
from pathencoder.locks import Lock
from pathencoder.text import counted
from training.archive.about import NOTHING, About
from training.archive.cache import Cache, Key, cache_of
from training.archive.checked import problems_between, refuse
from training.archive.exclude import read_lists
from training.archive.facts import Facts
from training.archive.item import Item
from training.archive.measuring import Task, measure_all
from training.archive.privacy import Pseudonyms, is_keyed, looks_personal
from training.archive.row import Row
from training.archive.rows import GONE, NO_DEFAULTS, Defaults, finished, merged
from training.archive.sources.base import Source
from training.archive.splits import SHARES, check_shares
from training.archive.stains import NOTHING as UNNAMED
from training.archive.stains import stain_in
from training.archive.store import Manifest, check_name, is_there, read_manifest, write_manifest

log = logging.getLogger(__name__)

_STATED = ("given", "table")  # stains for which nobody needs to look at a slide
_EVERY = 10.0  # seconds between lines of progress
_KINDS, _NAMED = 10, 3  # problems, and slides of each, in the summary
_END_OF_KIND = re.compile(r"[:.](?:\s|$)")  # what follows is of one slide, or advice


@dataclass(frozen=True)
class Options:
    """How a manifest is made.

    Attributes:
        about: What a table says of the slides.
        defaults: Values where neither the source nor the table states any.
        shares: Split -> share of the patients; None: as before, at first those of splits.SHARES.
        key: The file with the secret of the patients' codes; None: beside the manifest.
        exclude: Further lists of evaluation sets.
        hashed: Hash the files that lie here.
        look: Guess a stain by its colours where no name states it.
        processes: For reading headers; 0: the cores of this process.
        accept_removed: Rows that a person removed come back with use=0.
    """

    about: About = NOTHING
    defaults: Defaults = NO_DEFAULTS
    shares: Mapping[str, float] | None = None
    key: Path | None = None
    exclude: tuple[Path, ...] = ()
    hashed: bool = True
    look: bool = True
    processes: int = 0
    accept_removed: bool = False


@dataclass
class Built:
    """A manifest that was written, and what there is to say of it.

    Attributes:
        manifest: The manifest.
        failed: Sources that could not be listed: name and reason.
        left_out: What the sources left out.
        measured: Slides whose files were read in this run.
        notes: Sentences for the summary.
    """

    manifest: Manifest
    failed: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    measured: int = 0
    notes: list[str] = field(default_factory=list)


def build(sources: Sequence[Source], out: Path, options: Options = Options()) -> Built:
    """Make or update a manifest.

    Args:
        sources: Where the slides are; none: only take a person's edits.
        out: NAME.parquet; an existing one is updated.
        options: How.

    Returns:
        The manifest, as it was written.

    Raises:
        ConfigError: The manifest of before, or what a person edited, is wrong: all problems. Or no
            source could be listed, or the key is not that of the codes of before.
        StoreError: It cannot be written, or another process is writing it.
        MissingExtra: A package is not installed.
    """
    check_name(out)
    make_folder(out.parent)
    lock = Lock(out.with_name(f".{out.name}.lock"), f"{out}: another process is writing it")
    try:
        remove_incomplete(out)
        before = Manifest([], {})
        if is_there(out):
            before = read_manifest(out, accept_removed=options.accept_removed)
        codes = _codes(out, before, options)
        shares = check_shares(options.shares, before.shares)
        built = Built(before)
        excluded = read_lists(options.exclude, codes)
        items, listed = _list_all(sources, built)
        if built.failed and not items and not before.rows:
            reasons = "; ".join(reason for _, reason in built.failed)
            raise ConfigError(f"no slide was listed: {reasons}")
        patients = _patients(before.rows, items, codes, options)
        facts = _facts(items, before.rows, out, options, built)
        rows = _rows(before.rows, items, facts, patients, options, listed)
        rows = finished(rows, {row.key for row in before.rows}, shares, excluded, codes)
        refuse(out, problems_between(rows, lambda i: rows[i].slide))
        key = codes.fingerprint or before.key
        built.manifest = Manifest(rows, shares, before.edits, key)
        _say(built, items, before, options)
        write_manifest(out, built.manifest)
    finally:
        lock.release()
    return built


def record(out: Path, found: Mapping[Key, str], options: Options = Options()) -> int:
    """Write the sha256 of slides that were fetched into their manifest.

    Args:
        out: The manifest.
        found: Key of a slide -> its sha256.
        options: `key` and `exclude` count: a file may now be known to be of an evaluation set.

    Returns:
        How many slides turned out to belong to an evaluation set; they have use=0 now.

    Raises:
        ConfigError: The manifest is wrong, or the key is not that of its codes.
        StoreError: It cannot be written.
    """
    lock = Lock(out.with_name(f".{out.name}.lock"), f"{out}: another process is writing it")
    try:
        before = read_manifest(out)
        codes = _codes(out, before, options)
        rows = [replace(row, sha256=found.get(row.key) or row.sha256) for row in before.rows]
        if rows == before.rows:
            return 0
        excluded = read_lists(options.exclude, codes)
        known = {row.key for row in rows}
        rows = finished(rows, known, before.shares or SHARES, excluded, codes)
        key = codes.fingerprint or before.key
        write_manifest(out, replace(before, rows=rows, key=key))
    finally:
        lock.release()
    were = {row.key for row in before.rows if row.excluded}
    return sum(bool(row.excluded) and row.key not in were for row in rows)


def _codes(out: Path, before: Manifest, options: Options) -> Pseudonyms:
    """The codes of patients, by the key that gave those of before."""
    in_use = any(is_keyed(row.patient) for row in before.rows)
    file = options.key or out.with_suffix(".key")
    return Pseudonyms(file, in_use=in_use, fingerprint=before.key if in_use else "")


def _list_all(sources: Sequence[Source], built: Built) -> tuple[list[Item], set[str]]:
    """The slides of all sources, and the names of the sources that were listed to the end."""
    items: dict[Key, Item] = {}
    listed: set[str] = set()
    for source in sources:
        log.info("%s: listing", source.name)
        try:
            for item in source.items():
                if item.key != (item.src.strip(), item.source_id.strip()):
                    built.left_out.append(
                        f"{source.name}: {item.source_id!r}: its name begins or ends with a space:"
                        " rename it"
                    )
                    continue
                items.setdefault(item.key, item)
            listed.add(source.name)
        except PathEncoderError as error:
            log.warning("%s", error)
            built.failed.append((source.name, str(error)))
        built.left_out += getattr(source, "left_out", [])
    return list(items.values()), listed


def _patients(
    before: Sequence[Row], items: Sequence[Item], codes: Pseudonyms, options: Options
) -> dict[Key, str]:
    """The code of each slide's patient: before files are read, for which a key may be missing."""
    for row in before:
        codes.code_of(row.patient)  # a person may have typed it
    return {
        item.key: codes.code_of(options.about.of(item.source_id).get("patient", ""))
        or codes.code_of(item.patient, published=item.published)
        for item in items
    }


def _facts(
    items: Sequence[Item], before: Sequence[Row], out: Path, options: Options, built: Built
) -> dict[Key, Facts]:
    """What the files of the slides that lie here state; read only where they changed."""
    known = {row.key: row for row in before}
    found: dict[Key, Facts] = {}
    with Cache(cache_of(out)) as cache:
        tasks: list[Task] = []
        for item in items:
            if item.path is None or item.size is None or item.problem:
                continue
            old = known.get(item.key)
            named = bool(item.stain_class) or bool(old and old.stain_from in _STATED)
            look = options.look and not named and not _names_stain(item, options)
            size, modified, hashed = item.size, item.modified, options.hashed
            kept = cache.get(item.key, size, modified, hashed=hashed, look=look)
            if kept is not None:
                found[item.key] = kept
            else:
                tasks.append(Task(item.key, item.path, size, modified, hashed, look))
        for some in _with_progress(tasks, options):
            cache.add(some)
            found.update(some)
        built.measured = len(tasks)
        cache.compact()
    return found


def _names_stain(item: Item, options: Options) -> bool:
    """Whether the stain is known without looking at the slide."""
    if options.defaults.stain_class or "stain_class" in options.about.of(item.source_id):
        return True
    return stain_in(item.stain, item.described) is not UNNAMED


def _with_progress(tasks: Sequence[Task], options: Options) -> Iterator[list[tuple[Key, Facts]]]:
    if not tasks:
        return
    processes = options.processes or available()
    log.info("%d slides are read%s", len(tasks), " and hashed" if options.hashed else "")
    done, said = 0, time.monotonic()
    for some in measure_all(tasks, processes):
        yield some
        done += len(some)
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            log.info("%d of %d slides", done, len(tasks))


def _rows(
    before: Sequence[Row],
    items: Sequence[Item],
    facts: Mapping[Key, Facts],
    patients: Mapping[Key, str],
    options: Options,
    listed: set[str],
) -> list[Row]:
    """Rows of before and of items; a row whose source lists it no more stays, and says so."""
    known = {row.key: row for row in before}
    rows = []
    for item in items:
        old = known.pop(item.key, None)
        said = options.about.of(item.source_id)
        patient = patients[item.key]
        rows.append(merged(old, item, facts.get(item.key), patient, said, options.defaults))
    return rows + [
        replace(row, problem=GONE) if row.src in listed else row for row in known.values()
    ]


def _say(built: Built, items: Sequence[Item], before: Manifest, options: Options) -> None:
    """Notes on what was assumed, guessed or left out."""
    rows = built.manifest.rows
    notes = built.notes
    if before.edits:
        rows_were = counted(before.edits, "row was", "rows were")
        notes.append(f"{rows_were} edited by hand since: the edits are kept")
    if options.about.left_out:
        notes.append(
            f"columns of the table that were not read: {', '.join(options.about.left_out)}"
        )
    notes += _of_sets(rows, before.rows)
    alone = sum(not row.patient for row in rows)
    if alone:
        notes.append(
            f"no patient: {counted(alone, 'slide')}, each a patient of its own in the split"
            " (--about TABLE states patients)"
        )
    without = sum(row.stain_class == "unknown" for row in rows)
    if without:
        slides = counted(without, "slide")
        notes.append(f"no stain: {slides}, of which no name states it, and no colours decide")
    personal = [item for item in items if _may_name_a_person(item)]
    if personal:
        notes.append(
            "perhaps a date, a name or a patient's number in"
            f" {counted(len(personal), 'file name')}, in the columns slide, source_id and file."
            " Rename the files, or do not pass this manifest on"
        )
    notes += _unusable(rows)
    if problem := _no_licence(rows):
        notes.append(problem)


def _of_sets(rows: Sequence[Row], before: Sequence[Row]) -> list[str]:
    """What evaluation sets hold, and what they held before and hold no more."""
    lines = []
    if out := Counter(row.excluded for row in rows if row.excluded):
        named = ", ".join(f"{sets}: {count}" for sets, count in out.most_common(10))
        lines.append(
            f"of evaluation sets: {counted(out.total(), 'slide')}, with use=0 now ({named})"
        )
    were = {row.key for row in before if row.excluded}
    if back := [row.slide for row in rows if row.key in were and not row.excluded]:
        lines.append(
            "not of an evaluation set any more, by the lists of this run:"
            f" {counted(len(back), 'slide')} ({_listed(back)}). Where that is wrong, correct the"
            " list and run this again"
        )
    return lines


def _unusable(rows: Sequence[Row]) -> list[str]:
    """A line for each kind of problem, the most frequent first, with some of its slides."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        if row.problem:
            kinds.setdefault(_END_OF_KIND.split(row.problem)[0], []).append(row.slide)
    found = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    lines = [
        f"not usable, {kind}: {len(slides)} ({_listed(slides)})" for kind, slides in found[:_KINDS]
    ]
    if len(found) > _KINDS:
        lines.append(f"not usable for {len(found) - _KINDS} other reasons: see the column problem")
    return lines


def _listed(slides: Sequence[str]) -> str:
    more = f" and {len(slides) - _NAMED} more" if len(slides) > _NAMED else ""
    return ", ".join(slides[:_NAMED]) + more


def _may_name_a_person(item: Item) -> bool:
    """Whether the name of a file that people named may tell who the patient is."""
    named_by_people = item.path is not None or "://" in item.src
    return named_by_people and not item.published and looks_personal(item.source_id)


def _no_licence(rows: Sequence[Row]) -> str:
    count = sum(not row.licence for row in rows)
    return f"no licence: {counted(count, 'slide')} (--licence states it)" if count else ""
