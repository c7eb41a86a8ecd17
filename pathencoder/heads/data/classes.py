"""Decide how the labels of a whole set are read: which numbers and names are which classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pathencoder.heads.data.check import similar, spellings
from pathencoder.heads.data.dataset import in_order
from pathencoder.heads.data.survey import Facts
from pathencoder.heads.data.truth import BACKGROUND, UNKNOWN, Kind, Reading
from pathencoder.heads.dense.targets import IGNORED

ClassNames: TypeAlias = "Sequence[str] | Mapping[int, str | None] | Mapping[str, str | None] | None"
_IGNORE = "ignore"  # QuPath's class "Ignore*" and its like
_NAMELESS = frozenset({"", "unclassified", "unlabelled", "unlabeled", "unknown", "none", "nan"})
_MOST = 64  # classes that are plausible
_OBJECTS = 10  # numbers in one map, from which on they may be those of objects
_SEPARATE = (
    "the label maps have one number for all objects: each connected part is one object, and objects"
    " that touch are one"
)


@dataclass(frozen=True)
class Decision:
    """How labels are read.

    Attributes:
        reading: How.
        problems: What is wrong with the set as a whole, as sentences.
        notes: What was assumed, as sentences.
        unknown: Numbers and names of classes that have no name.
    """

    reading: Reading
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unknown: frozenset[int | str] = frozenset()


def decide(kind: Kind, facts: Sequence[Facts], given: ClassNames) -> Decision:
    """Decide how the labels of a set are read.

    Args:
        kind: What the task learns.
        facts: Of every image.
        given: Names of the classes: by number in a sequence; or stored number or name to a name,
            None where a class is not to be learned. None: as they are stored.

    Returns:
        The decision.
    """
    named = None if given is None else dict(_pairs(given))
    stored = sum((f.areas + f.points for f in facts), Counter[str]())
    if named is None and kind != "objects" and (problems := tuple(_similar(stored, kind))):
        return Decision(Reading(kind), problems)
    if kind == "classes":
        return _of_pixels(facts, stored, named)
    names, numbers = _names_of(stored, named)
    nameless = {name for name in stored if _is_nameless(name)} | {""}
    separate = max(_numbers_in(facts), default=0) == 1
    problems = () if separate else tuple(_maps_of_classes(facts))
    notes: tuple[str, ...] = (_SEPARATE,) if separate else ()
    unnamed: int | None = 0 if named is None else None
    if kind == "points" and names:
        unnamed = UNKNOWN
    else:
        numbers = {name: None if n is None else 0 for name, n in numbers.items()}
    for name in nameless:
        numbers.setdefault(name, unnamed)
    unknown = frozenset(stored) - frozenset(numbers)
    reading = Reading(kind, names if kind == "points" else (), {}, numbers, separate=separate)
    if kind == "points" and names:
        notes += tuple(_without_class(facts, stored, reading))
    return Decision(reading, problems, (*notes, *_ignored(stored, numbers)), unknown)


def _without_class(facts: Sequence[Facts], stored: Counter[str], reading: Reading) -> Iterator[str]:
    """How many points have no class, where others have one."""
    count = sum(n for name, n in stored.items() if reading.numbers.get(name) == UNKNOWN)
    maps = [fact for fact in facts if fact.values is not None]
    count += sum(fact.parts if reading.separate else fact.objects for fact in maps)
    if count:
        yield f"{count} points have no class, others have one: only their places are learned"


def _similar(stored: Counter[str], kind: Kind) -> Iterator[str]:
    """Say so where names of classes are one, in two spellings."""
    names = [name for name in stored if not _is_nameless(name) and not _is_ignored(name)]
    for same, problem in zip(spellings(names), similar(names, "the classes"), strict=True):
        pairs = [f"{name!a}: {same[0]!a}" for name in same]
        if kind == "classes":  # else pixels outside all outlines would not be learned
            pairs.append(f"{BACKGROUND!r}: {BACKGROUND!r}")
        yield f"{problem}, or name every class in labels={{{', '.join(pairs)}, ...}}"


def _pairs(given: ClassNames) -> Iterator[tuple[int | str, str | None]]:
    if isinstance(given, Mapping):
        yield from given.items()
        return
    for number, name in enumerate(given or ()):
        yield number, name
        yield name, name


def _names_of(
    stored: Counter[str], named: dict[int | str, str | None] | None
) -> tuple[tuple[str, ...], dict[str, int | None]]:
    """The classes of areas and points, and stored names to their numbers."""
    if named is None:
        ignored = {name for name in stored if _is_ignored(name)}
        names = in_order(n for n in stored if not _is_nameless(n) and n not in ignored)
        return names, {n: i for i, n in enumerate(names)} | dict.fromkeys(ignored)
    names = tuple(dict.fromkeys(name for name in named.values() if name is not None))
    # stored names go before numbers: of labels=["1", "0"], the name "1" is the first class
    pairs = sorted(named.items(), key=lambda pair: isinstance(pair[0], str))
    numbers = {str(key): None if name is None else names.index(name) for key, name in pairs}
    return names, numbers


def _is_nameless(name: str) -> bool:
    """Whether the name of a class says that there is none."""
    return name.strip().casefold() in _NAMELESS


def _is_ignored(name: str) -> bool:
    """Whether the name of a class says that it is not to be learned."""
    return name.strip().casefold().startswith(_IGNORE)


def _ignored(stored: Counter[str], numbers: Mapping[str, int | None]) -> Iterator[str]:
    left = {name: stored[name] for name in stored if numbers.get(name, 0) is None}
    if left:
        listed = ", ".join(f"{name or 'no class'} {count}" for name, count in left.items())
        yield f"left out: labels of classes that are not learned ({listed})"


def _numbers_in(facts: Sequence[Facts]) -> list[int]:
    """Number of numbers above 0 in each map."""
    return [int((f.values > 0).sum()) for f in facts if f.values is not None]


def _maps_of_classes(facts: Sequence[Facts]) -> Iterator[str]:
    """Say so where maps have the numbers of classes instead of those of objects."""
    numbers = sum(_numbers_in(facts))
    parts = sum(f.parts for f in facts)
    if parts > 2 * numbers:
        yield (
            f"the label maps hold {numbers} numbers for {parts} separate parts: numbers of classes,"
            " not of objects. Give each object a number of its own, or all objects one"
        )


def _of_pixels(
    facts: Sequence[Facts], stored: Counter[str], named: dict[int | str, str | None] | None
) -> Decision:
    found = sorted({int(v) for f in facts if f.values is not None for v in f.values})
    if found and stored and named is None:
        problem = "some images have label maps, others outlines: name the classes of both (labels=)"
        return Decision(Reading("classes"), (problem,))
    return _of_regions(stored, named) if stored or not found else _of_maps(facts, found, named)


def _numbers_of_objects(facts: Sequence[Facts]) -> str:
    """Say so where every map numbers its objects from 1, as many as there are; else ""."""
    maps = [f.values[f.values > 0] for f in facts if f.values is not None]
    counts = {len(values) for values in maps}
    counted = all(np.array_equal(v, np.arange(1, len(v) + 1)) for v in maps)
    if not counted or len(counts) < 2 or max(counts) < _OBJECTS:
        return ""
    return (
        f"the label maps hold the numbers 1 to {min(counts)}, or to {max(counts)}: numbers of"
        " objects, as it seems. For two classes save mask > 0; if they are classes, name them"
        " (labels=)"
    )


def _of_maps(
    facts: Sequence[Facts], found: list[int], named: dict[int | str, str | None] | None
) -> Decision:
    """Classes of label maps."""
    notes: list[str] = []
    if named is None and (problem := _numbers_of_objects(facts)):
        return Decision(Reading("classes"), (problem,))
    if named is not None:
        names = tuple(dict.fromkeys(name for name in named.values() if name is not None))
        by_number = {int(k): n for k, n in named.items() if isinstance(k, str) and k.isdecimal()}
        by_number |= {int(k): n for k, n in named.items() if not isinstance(k, str)}
    elif found == [0, IGNORED]:
        names, by_number = (BACKGROUND, "object"), {0: BACKGROUND, IGNORED: "object"}
        notes.append(f"the label maps hold 0 and {IGNORED} alone: background and object")
    else:
        names = tuple(str(value) for value in found if value != IGNORED)
        by_number = {int(name): name for name in names}
        if len(by_number) > _MOST or max(by_number, default=0) >= IGNORED:
            problem = (
                f"the label maps hold {len(found)} numbers up to {max(found)}: more than there are"
                " classes. Numbers of objects are for the tasks glands and nuclei; for classes with"
                " such numbers name them: labels={0: 'background', 300: 'tumour'}"
            )
            return Decision(Reading("classes"), (problem,))
    if IGNORED in found and IGNORED not in by_number:
        by_number[IGNORED] = None
        notes.append(f"pixels of the number {IGNORED} are not learned")
    values = {k: IGNORED if n is None else names.index(n) for k, n in by_number.items()}
    numbers = {n: i for i, n in enumerate(names)}
    outside = next((i for n, i in numbers.items() if n.casefold() == BACKGROUND), IGNORED)
    unknown = frozenset(found) - frozenset(values)
    reading = Reading("classes", names, values, dict(numbers), outside)
    return Decision(reading, _too_few(names), tuple(notes), unknown)


def _of_regions(stored: Counter[str], named: dict[int | str, str | None] | None) -> Decision:
    """Classes of areas."""
    names, numbers = _names_of(stored, named)
    notes: list[str] = []
    nameless = [name for name in stored if _is_nameless(name) and name not in numbers]
    if named is None and not names and nameless:
        names = ("object",)
        numbers |= dict.fromkeys(nameless, 0)
    elif nameless:
        count = sum(stored[name] for name in nameless)
        notes.append(f"left out: {count} outlines without a class, where others have one")
    explicit = next((i for i, n in enumerate(names) if n.casefold() == BACKGROUND), None)
    if named is None and explicit is None:
        names = (BACKGROUND, *names)
        numbers = {name: None if n is None else n + 1 for name, n in numbers.items()}
        outside = 0
        notes.append("pixels outside all outlines are the class 'background'")
    elif named is not None and explicit is not None:
        outside = explicit
    else:
        outside = IGNORED
        notes.append("pixels outside all outlines are not learned")
    if any(n is None for n in numbers.values()):
        left = ", ".join(name for name, n in numbers.items() if n is None)
        notes.append(f"pixels of {left} are not learned")
    unknown = frozenset(stored) - frozenset(numbers) - frozenset(nameless)
    reading = Reading("classes", names, {}, numbers, outside)
    return Decision(reading, _too_few(names), tuple(notes), unknown)


def _too_few(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > 1:
        return ()
    found = f"the class {names[0]!r} alone" if names else "no class"
    return (
        f"the labels hold {found}: at least two are needed, of which one may be 'background'"
        " (labels=['background', 'tumour'])",
    )


def of_train(reading: Reading, facts: Sequence[Facts]) -> list[str]:
    """The classes that occur in none of these images.

    Args:
        reading: How labels are read.
        facts: Of the images of the train part.
    """
    seen: set[int | None] = {reading.outside} if any(f.values is None for f in facts) else set()
    for fact in facts:
        if fact.values is not None:
            seen.update(reading.values.get(int(v)) for v in fact.values)
        seen.update(reading.numbers.get(name) for name in fact.areas + fact.points)
    return [name for number, name in enumerate(reading.names) if number not in seen]


def labels_of(facts: Sequence[Facts]) -> int:
    """Number of objects, areas and points of images."""
    return int(np.sum([f.objects for f in facts], dtype=np.int64))
