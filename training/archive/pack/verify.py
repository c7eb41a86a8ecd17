"""Read shards again: is every one what its record says, and does every row have its tiles?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathencoder.errors import ConfigError
from training.archive.pack.files import POSITION, read_record, sha256_of_file
from training.archive.pack.layout import FILE, read_layout
from training.data.tar import members_of


def verify(out: Path) -> Iterator[str]:
    """Compare a folder of shards with its records.

    Args:
        out: The folder.

    Yields:
        One sentence for each thing that is wrong.

    Raises:
        ConfigError: It is no folder of shards.
        StoreError: A record is damaged.
    """
    layout = read_layout(out)
    if layout is None:
        raise ConfigError(f"{out}: no {FILE} there: it is no folder of shards")
    known = set()
    for number in range(len(layout.groups)):
        record = read_record(out, number)
        if record is None:
            yield f"group {number} is not packed yet: run pack again"
            continue
        for shard in record["shards"]:
            known.add(shard["name"])
            if problem := _problem(out / shard["name"], shard["sha256"], shard["images"]):
                yield (
                    f"{shard['name']}: {problem}. Remove {number:06d}* there, and run pack again:"
                    " its slides are packed anew"
                )
    for pattern in ("*.tar", "*.xy"):
        for file in sorted(out.glob(pattern)):
            if file.name not in known:
                yield f"{file.name}: it is in no record"


def _problem(file: Path, sha256: str, images: int) -> str:
    """What is wrong with a shard; ""."""
    if not file.exists():
        return "it is missing"
    try:
        if sha256_of_file(file) != sha256:
            return "its bytes changed since it was written"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    found = file.stat().st_size // POSITION.size
    if file.suffix == ".tar":
        found = len(members_of(file).names)
    return "" if found == images else f"it has {found} tiles, not {images}"
