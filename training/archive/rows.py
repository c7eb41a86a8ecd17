"""One row from what a source, a slide's files, a table and the row of before state."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from training.archive.about import values_of
from training.archive.exclude import Excluded
from training.archive.facts import Facts
from training.archive.item import Item
from training.archive.privacy import Pseudonyms
from training.archive.row import EDITABLE, Row
from training.archive.splits import split_by_hash
from training.archive.stains import NOTHING, stain_in

SAME = "the same file as "
GONE = "its source does not list it any more"
_LONGEST = 160  # characters of a slide's name


@dataclass(frozen=True)
class Defaults:
    """Values of slides for which nothing else states them; "" for none."""

    stain_class: str = ""
    organ: str = ""
    licence: str = ""


NO_DEFAULTS = Defaults()


def merged(
    old: Row | None,
    item: Item,
    facts: Facts | None,
    patient: str,
    said: Mapping[str, str],
    defaults: Defaults,
) -> Row:
    """The row of a slide that a source lists.

    A person's edits count most, then a table, then the source, the file and guesses. What is not
    stated now, and was before, stays.

    Args:
        old: The row of before.
        item: As the source lists it.
        facts: What its files state.
        patient: Its code.
        said: What a table says of it.
        defaults: For what nothing states.
    """
    values: dict[str, object] = {
        "slide": old.slide if old else _name(item),
        "patient": patient,
        "organ": item.organ or defaults.organ,
        "scanner": item.scanner or (facts.scanner if facts else ""),
        "licence": item.licence or defaults.licence,
        "src": item.src,
        "source_id": item.source_id,
        "file": item.file,
        "size": facts.size if facts and facts.size else item.size,
        "width": item.width or (facts.width if facts else None),
        "height": item.height or (facts.height if facts else None),
        "checksum": item.checksum,
        "release": item.release,
        "problem": item.problem or (facts.problem if facts else ""),
        "sha256": facts.sha256 if facts else "",
        **_mpp(item, facts),
        **_stain(item, facts, defaults),
        **values_of(said),
        "edited": " ".join(sorted(f"{name}@table" for name in said)),
    }
    if old is not None:
        values |= _kept(old, values, frozenset(said))
        if facts is not None:
            values["sha256"] = facts.sha256
    if values.get("mpp_value") and str(values["problem"]).startswith("no scale"):
        values["problem"] = ""
    return Row(**values)  # type: ignore[arg-type]


def _kept(old: Row, new: Mapping[str, object], new_stated: frozenset[str]) -> dict[str, object]:
    """What a row keeps of before: edits, what a table stated, and what nothing states now."""
    edits = old.edits | (old.stated - new_stated)
    kept: dict[str, object] = {name: getattr(old, name) for name in edits}
    stated = (old.stated | new_stated) - old.edits
    kept["edited"] = " ".join(sorted({*old.edits, *(f"{name}@table" for name in stated)}))
    kept |= {"note": old.note, "use": old.use if "use" in edits else True}
    kept["excluded"] = old.excluded  # `finished` asks the lists of this run
    if "split" not in new and old.patient == new["patient"]:
        kept["split"] = old.split
    same = (old.size, old.checksum) == (new["size"], new["checksum"])
    if not new["sha256"] and same:
        kept["sha256"] = old.sha256
    for name in EDITABLE:
        if name not in edits and not new.get(name) and name not in ("use", "split"):
            kept[name] = getattr(old, name)
    guessed = new.get("stain_from") in ("", "pixels")
    if "stain_class" in edits or (guessed and old.stain_from not in ("", "pixels")):
        for name in ("stain_class", "stain_from", "stain_confidence"):
            kept[name] = getattr(old, name)
    if "mpp_value" in edits or not new.get("mpp_value"):
        kept |= {"mpp_value": old.mpp_value, "mpp_from": old.mpp_from}
    return kept


def _mpp(item: Item, facts: Facts | None) -> dict[str, object]:
    if item.mpp:
        return {"mpp_value": item.mpp, "mpp_from": "source"}
    if facts and facts.mpp:
        return {"mpp_value": facts.mpp, "mpp_from": facts.mpp_from}
    return {"mpp_value": None, "mpp_from": ""}


def _stain(item: Item, facts: Facts | None, defaults: Defaults) -> dict[str, object]:
    """The stain: by the source, by a name, by what the user says of all slides, by colours."""
    if item.stain_class:
        return _as_values(item.stain_class, item.stain, 0.99, "source")
    named = stain_in(item.stain, item.described)
    if named is not NOTHING:
        return _as_values(named.stain_class, named.stain, named.confidence, "name")
    if defaults.stain_class:
        return _as_values(defaults.stain_class, item.stain, 1.0, "given")
    if facts and facts.stain_class:
        return _as_values(facts.stain_class, item.stain, facts.stain_confidence, "pixels")
    return _as_values("unknown", item.stain, None, "")


def _as_values(
    stain_class: str, stain: str, confidence: float | None, source: str
) -> dict[str, object]:
    return {
        "stain_class": stain_class,
        "stain": stain,
        "stain_confidence": confidence or None,
        "stain_from": source,
    }


def _name(item: Item) -> str:
    """A slide's name: that of its file without the suffix."""
    path = PurePosixPath(item.file)
    stem = path.name if not path.suffix or len(path.suffix) > 8 else path.stem
    stem = stem[:-4] if stem.lower().endswith(".ome") else stem
    return stem[:_LONGEST] or "slide"


def finished(
    rows: Sequence[Row],
    known: Collection[tuple[str, str]],
    shares: Mapping[str, float],
    excluded: Excluded,
    codes: Pseudonyms,
) -> list[Row]:
    """All rows with unique names, splits, and evaluation sets out.

    Args:
        rows: As `merged` gives them.
        known: The keys of the rows that were there before; they keep their names.
        shares: Split -> share.
        excluded: The patients and files of evaluation sets. What another list excluded in an
            earlier run stays out.
        codes: A patient that a person typed becomes a code here.
    """
    coded = [_changed(row, patient=codes.code_of(row.patient)) for row in _named_once(rows, known)]
    splits = {row.patient: row.split for row in coded if row.patient and row.split}
    done = []
    for row in coded:
        sets = excluded.sets_of(row.patient, row.sha256, row.excluded)
        use = row.use or (bool(row.excluded) and "use" not in row.edits)
        split = row.split
        if not split and "split" not in row.edits:
            split = splits.get(row.patient) or split_by_hash(row.patient or row.slide, shares)
        done.append(_changed(row, split=split, excluded=sets, use=use and not sets))
    return _without_copies(done)


def _changed(row: Row, **values: Any) -> Row:
    """The row with other values; itself where they are the same, which is most often."""
    if all(getattr(row, name) == value for name, value in values.items()):
        return row
    return replace(row, **values)


def _without_copies(rows: Sequence[Row]) -> list[Row]:
    """Of slides with the same bytes all but the first have that as their problem.

    A copy under another name would be in two splits.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.key):
        if row.sha256 and (row.problem in ("", GONE) or row.problem.startswith(SAME)):
            kept = first.setdefault(row.sha256, row)
            if kept.problem == GONE and row.problem != GONE:
                first[row.sha256] = row
    out = []
    for row in rows:
        problem = "" if row.problem.startswith(SAME) else row.problem
        kept = first.get(row.sha256, row)
        if not problem and kept.key != row.key:
            problem = f"{SAME}{kept.slide}"
        out.append(_changed(row, problem=problem))
    return out


def _named_once(rows: Sequence[Row], known: Collection[tuple[str, str]]) -> list[Row]:
    """New slides whose name is taken get a part of their key's hash.

    The name of an older row stays, wherever it stands: shards and features are named by it.
    """
    out: list[Row] = []
    taken = {row.slide.casefold() for row in rows if row.key in known}
    for row in rows:
        if row.key not in known and row.slide.casefold() in taken:
            digest = hashlib.sha256("\0".join(row.key).encode()).hexdigest()[:6]
            row = replace(row, slide=f"{row.slide}-{digest}")
        taken.add(row.slide.casefold())
        out.append(row)
    return out
