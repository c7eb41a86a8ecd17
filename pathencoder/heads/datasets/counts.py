"""What was found in a folder against what the authors of a set published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.datasets.public_set import Counts


def by_class(data: Dataset) -> Counts:
    """How many images of each class each part holds."""
    found: dict[str, Counter[str]] = {}
    for row, label in enumerate(data.labels):
        found.setdefault(data.part(row), Counter())[label] += 1
    return found


def differences(found: Counts, published: Counts) -> list[str]:
    """Sentences on counts that differ from the published ones.

    Args:
        found: By part, then by class or kind.
        published: The same.

    Returns:
        One sentence a part that differs; none where all agree.
    """
    notes = []
    for part, counts in published.items():
        if part not in found:
            notes.append(f"the part {part!r} is not there ({sum(counts.values()):,} published)")
        elif wrong := _wrong(found[part], counts):
            notes.append(
                f"{part}: {', '.join(wrong)}: the copy is incomplete or of another version"
            )
    return notes


def _wrong(found: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    return [
        f"{found.get(name, 0):,} {name} ({published.get(name, 0):,} published)"
        for name in dict.fromkeys([*published, *found])
        if found.get(name, 0) != published.get(name, 0)
    ]
