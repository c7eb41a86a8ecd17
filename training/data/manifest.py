"""What the rows of a manifest say, of tiles or of slides: which may be trained on, their stain, their patient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError

# The stain classes that augmentation knows; a folder without a manifest is "unknown".
STAIN_CLASSES = ("he", "ihc", "special", "cytology", "mixed", "unknown")
# What a `split` column calls the parts that must never be learnt from.
HELD_OUT = ("val", "valid", "validation", "dev", "test", "benchmark", "holdout")


@dataclass(frozen=True)
class Wanted:
    """Which rows of a manifest; empty: all."""

    licences: tuple[str, ...]
    stains: tuple[str, ...]
    without: tuple[str, ...]

    def takes(self, row: dict[str, str]) -> bool:
        """Whether a row may be trained on and was asked for."""
        return (
            row.get("use", "1") == "1"
            and (row.get("split") or "").lower() not in HELD_OUT
            and (not self.licences or row.get("licence") in self.licences)
            and (not self.stains or row.get("stain_class") in self.stains)
            and row.get("src") not in self.without
        )


def refuse_shared_patients(rows: list[dict[str, str]], manifest: Path) -> None:
    """Raises ConfigError naming patients that a manifest's `split` column has on both sides."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.get("split") and row.get("patient"):
            splits.setdefault(row["patient"], set()).add(row["split"])
    both = sorted(p for p, found in splits.items() if len(found) > 1)
    if both:
        named = ", ".join(f"{p} ({' and '.join(sorted(splits[p]))})" for p in both[:5])
        raise ConfigError(f"{manifest}: {len(both)} patients are in two splits: {named}. Give each patient one split")


def stain_index(row: dict[str, str]) -> int:
    """The row's stain class as an index into STAIN_CLASSES; one we do not know is "unknown"."""
    name = row.get("stain_class") or "unknown"
    return STAIN_CLASSES.index(name if name in STAIN_CLASSES else "unknown")


def digest_of(lines: list[str]) -> str:
    """sha256 of the sorted lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
