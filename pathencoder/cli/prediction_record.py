"""What a table of predictions was made from, in a small file beside it: NAME.csv.json.

Two inputs of two commands may have one name. The record says whose table it is: another input, or
another head, replaces it with --overwrite alone, and the same command again skips what is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.features.identity import hash_file, place_of, stat_of
from pathencoder.files import Mismatch, whole_file
from pathencoder.walk import printable

FORMAT = "pathencoder-predictions"
_HINT = "--overwrite replaces it; or choose another --out"


@dataclass(frozen=True)
class Record:
    """Whose a table is, and whether it is whole.

    Attributes:
        source: The input.
        images: Digest of the names of images that the user named one by one; "" for a whole input.
        head: Digest of the head.
        mpp: That was given for the images; None: none was.
        stamp: Digest of the sizes and times of all files of the input.
        table: Hash of the table.
        rows: Of the table.
        failures: Parts of the input that are not in the table.
    """

    source: str
    images: str
    head: str
    mpp: float | None
    stamp: str
    table: str = ""
    rows: int = 0
    failures: int = 0

    @classmethod
    def of(cls, job: Job, head: str, mpp: float | None) -> Record:
        """The record of a table that is not written yet; `head` is the digest of the head."""
        loose = not (job.whole or job.is_one_image)
        return cls(
            source=place_of(job.source),
            images=_digest(key for key, _ in job.images) if loose else "",
            head=head,
            mpp=mpp,
            stamp=_digest(f"{key} {tuple(stat_of(path))}" for key, path in job.images),
        )

    def check_owner(self, file: Path, before: Record | None) -> None:
        """Refuse to replace the table of another input or another head.

        Args:
            file: The table.
            before: Its record; None where it has none.

        Raises:
            Mismatch: It is not of this one.
        """
        if before is None:
            raise Mismatch(
                f"{file} has no record of its input, as tables of earlier versions: {_HINT}"
            )
        if before.source != self.source:
            raise Mismatch(f"{file} holds the predictions of {before.source}: {_HINT}")
        if before.images != self.images:
            raise Mismatch(f"{file} holds the predictions of other images there: {_HINT}")
        if before.head != self.head:
            raise Mismatch(f"{file} holds the predictions of another head: {_HINT}")
        if before.mpp != self.mpp:
            raise Mismatch(f"{file} was made with another --mpp ({before.mpp}): {_HINT}")

    def done_before(self, file: Path, before: Record) -> bool:
        """Whether the table is whole, and neither it nor its input has changed since."""
        return (
            not before.failures
            and before.stamp == self.stamp
            and before.table == hash_file(file).hex()
        )

    def write(self, file: Path, text: bytes, *, rows: int, failures: int) -> None:
        """Write the record, before its table: an interrupted run then finds it as its own."""
        now = replace(
            self,
            table=hashlib.blake2b(text, digest_size=16).hexdigest(),
            rows=rows,
            failures=failures,
        )
        with whole_file(_beside(file)) as temporary:
            content = {"format": FORMAT, **asdict(now)}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> Record | None:
    """The record of a table; None where there is none that can be read."""
    try:
        content = json.loads(_beside(file).read_bytes())
        if content.pop("format") != FORMAT:
            return None
        return Record(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _digest(texts: Iterable[str]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for text in texts:
        found.update(printable(text).encode() + b"\0")
    return found.hexdigest()
