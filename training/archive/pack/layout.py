"""Which slides lie in which shards: groups of slides, fixed when they are first packed.

pack.json holds the settings and the groups. Slides that a manifest gains later form new groups, so
that what was written stays. The groups depend on nothing but pack.json and the manifest: processes
on several machines that share the work agree without talking to each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.files import Mismatch, whole_file
from pathencoder.locks import Lock
from training.archive.pack.settings import Settings
from training.archive.row import Row

FILE = "pack.json"
_FORMAT = 1
_TISSUE = 0.3  # the share of a slide's area that is tissue, about
_SLIDE = 10_000  # tiles of a slide of unknown size
_LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class Member:
    """A slide of a group: its name in the manifest, and a hash of where it is from."""

    slide: str
    source: str


@dataclass
class Layout:
    """The contents of pack.json.

    Attributes:
        settings: Of all groups.
        groups: The slides of each, in order.
    """

    settings: Settings
    groups: list[list[Member]] = field(default_factory=list)

    @property
    def members(self) -> dict[str, Member]:
        """Every slide that has a place, by name."""
        return {member.slide: member for group in self.groups for member in group}


def member_of(row: Row) -> Member:
    """The slide of a row."""
    digest = hashlib.sha256("\0".join(row.key).encode()).hexdigest()[:12]
    return Member(row.slide, digest)


def read_layout(out: Path) -> Layout | None:
    """The layout of a folder of shards; None where there is none.

    Raises:
        ConfigError: pack.json is damaged, or of another version.
    """
    file = out / FILE
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ConfigError(f"{file}: written by another version of this tool: use another --out")
        settings = {**found["settings"], "mpp": tuple(found["settings"]["mpp"])}
        groups = [[Member(*member) for member in group] for group in found["groups"]]
        return Layout(Settings(**settings), groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{file} is damaged ({error}): put a copy of it back, or pack into another folder"
        ) from error


def extended(
    out: Path,
    rows: Sequence[Row],
    settings: Settings,
    *,
    is_wanted: Callable[[Row], bool],
    again: Callable[[Layout], Iterable[str]],
) -> Layout:
    """The layout with groups for the slides that have no place yet; written where it is new.

    Args:
        out: The folder of the shards.
        rows: Of the manifest.
        settings: Those of the command.
        is_wanted: Whether a slide lies here and is asked for; another one gets no place yet.
        again: Slides that failed before and are to be tried again.

    Returns:
        The layout.

    Raises:
        ConfigError: The settings are not those of the shards that are there.
        Mismatch: The shards are of another manifest.
        StoreError: pack.json cannot be written.
    """
    lock = Lock(
        out / ".pack.lock",
        f"{out}: another process has been planning shards there for two minutes",
        seconds=_LOCK_SECONDS,
        between_machines=True,
    )
    try:
        layout = read_layout(out)
        if layout is not None:
            _refuse_others(out, layout, rows, settings)
        else:
            layout = Layout(settings)
        placed, repeat = layout.members, set(again(layout))
        new = [
            row
            for row in rows
            if row.use and not row.problem
            if (row.slide not in placed or row.slide in repeat) and is_wanted(row)
        ]
        new.sort(key=lambda row: row.key)
        if new or not (out / FILE).exists():
            layout.groups += _groups(new, settings)
            _write(out / FILE, layout)
    finally:
        lock.release()
    return layout


def _refuse_others(out: Path, layout: Layout, rows: Sequence[Row], settings: Settings) -> None:
    old, new = layout.settings.record(), settings.record()
    differing = [f"{name} {old[name]}, not {new[name]}" for name in new if old[name] != new[name]]
    if differing:
        raise ConfigError(
            f"{out} was packed with other settings ({'; '.join(differing)}). Give those, or another"
            " --out"
        )
    now = {row.slide: member_of(row) for row in rows}
    lost = [member for member in layout.members.values() if now.get(member.slide) != member]
    if lost:
        names = ", ".join(member.slide for member in lost[:3])
        raise Mismatch(
            f"{out} holds shards of another manifest: {len(lost)} of its slides are not in this one"
            f" ({names} ...). Name its manifest, or another --out. Rows must not be removed from a"
            " manifest: set use to 0"
        )


def _groups(rows: Sequence[Row], settings: Settings) -> list[list[Member]]:
    """Slides in their order, as many as fill a shard by an estimate."""
    groups: list[list[Member]] = []
    filled = float("inf")
    for row in rows:
        size = _tiles(row, settings) * settings.tile_bytes
        if filled + size > settings.shard_bytes:
            groups.append([])
            filled = 0.0
        groups[-1].append(member_of(row))
        filled += size
    return groups


def _tiles(row: Row, settings: Settings) -> float:
    """About how many tiles a slide gives."""
    known = bool(row.width and row.height and row.mpp_value)
    area = float(row.width or 0) * (row.height or 0) * (row.mpp_value or 0) ** 2
    total = 0.0
    for mpp in settings.mpp:
        tiles = _TISSUE * area / (settings.tile_px * mpp) ** 2 if known else _SLIDE
        total += min(tiles, settings.tiles) if settings.tiles else tiles
    return total


def _write(file: Path, layout: Layout) -> None:
    found: Mapping[str, Any] = {
        "format": _FORMAT,
        "settings": layout.settings.record(),
        "groups": [[[m.slide, m.source] for m in group] for group in layout.groups],
    }
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
