"""Slides in S3, Google Cloud Storage and Azure, through obstore.

Credentials are those of the environment, as everywhere in pathencoder.remote.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pathencoder.errors import PathEncoderError
from pathencoder.remote.objects import Object, explain, join, located, without_details
from pathencoder.remote.slides import RemoteSlide, find_slides
from training.archive.facts import sha256_of
from training.archive.http import Refused, SourceError
from training.archive.item import Item
from training.archive.privacy import tcga_patient
from training.archive.row import Row
from training.archive.sources.base import expected_of, safe_name, verify_file
from training.archive.transfer import Broken, Expected, Part, Replaced, transfer

_CHUNK = 4 << 20
_REFUSED = {"PermissionDeniedError": 403, "UnauthenticatedError": 401}  # HTTP's status


class Objects:
    """The slides below a prefix of a store, or one object.

    Args:
        url: s3://, gs:// or az://.
        pause: Seconds before another try.
    """

    local = False

    def __init__(self, url: str, pause: float = 0.5) -> None:
        self.name, self._pause = url, pause
        self.left_out: list[str] = []

    def items(self) -> Iterator[Item]:
        """The slides in the order of their names.

        Raises:
            SlideError: The store does not answer, or there is nothing of this name.
        """
        found = find_slides(self.name)
        self.left_out = [f"{place}: {reason}" for place, reason in found.left_out]
        for slide in found.slides:
            yield self._item(slide)

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """See `Source.fetch`."""
        slide = self._find(row)
        if row.size is not None and slide.size != row.size:
            raise Replaced(
                f"{slide.url}: it has {slide.size:,} bytes, and had {row.size:,} when it was"
                " listed: it was replaced. List it again: python -m training.archive manifest"
            )
        if len(slide.files) == 1 and not slide.whole_folder:
            return self._one(slide, row, place, stop)
        target = place if slide.whole_folder else place.parent
        fetch_all(slide.folder, slide.files, target, stop, self._pause)
        return _confirmed(row, place)

    def verify(self, row: Row, place: Path) -> str:
        """See `Source.verify`."""
        if place.is_file() and row.size is not None and place.stat().st_size == row.size:
            return verify_file(row, place)
        return verify_folder(row, place)

    def _one(self, slide: RemoteSlide, row: Row, place: Path, stop: threading.Event) -> str:
        """Bring a slide of one file here."""
        listed = slide.files[0]
        if row.checksum.startswith("etag:") and row.checksum != _etag(listed.etag):
            raise Replaced(
                f"{slide.url}: its ETag is another than when it was listed: it was replaced. List"
                " it again: python -m training.archive manifest"
            )
        url = join(slide.folder, listed.name)
        return fetch_object(url, listed, place, expected_of(row), stop, self._pause)

    def _find(self, row: Row) -> RemoteSlide:
        url = self._url(row)
        found = [s for s in find_slides(url).slides if s.url == url]
        if not found:
            raise SourceError(f"{url}: the slide is not there any more")
        return found[0]

    def _url(self, row: Row) -> str:
        return f"{self.name.rstrip('/')}/{row.source_id}" if row.source_id != "." else self.name

    def _item(self, slide: RemoteSlide) -> Item:
        root = self.name.rstrip("/")
        relative = slide.url.removeprefix(root).lstrip("/") or "."
        _, _, rest = slide.url.partition("://")
        single = len(slide.files) == 1
        etag = slide.files[0].etag if single else str(slide.version[2])
        return Item(
            src=self.name,
            source_id=relative,
            file="/".join(safe_name(part) for part in rest.split("/")),
            patient=tcga_patient(rest),
            published=bool(tcga_patient(rest)),
            size=slide.size,
            checksum=_etag(etag),
            described=rest,
        )


def _etag(etag: str) -> str:
    """An ETag as the column `checksum` holds it; "" for none."""
    plain = etag.replace('"', "")
    return f"etag:{plain}" if plain else ""


def fetch_object(
    url: str,
    listed: Object,
    place: Path,
    expected: Expected,
    stop: threading.Event,
    pause: float = 0.5,
) -> str:
    """Bring one object here.

    Args:
        url: Of the object.
        listed: The object as the store lists it now.
        place: The file to write.
        expected: What must come.
        stop: Set by another thread to end.
        pause: Seconds before another try.

    Returns:
        The sha256 of the file.

    Raises:
        SourceError: As `transfer`.
    """
    return transfer(partial(_open, url, listed), place, expected, stop=stop, pause=pause)


def fetch_all(
    folder: str,
    files: Sequence[Object],
    place: Path,
    stop: threading.Event,
    pause: float = 0.5,
) -> None:
    """Bring all objects of a slide here; those that are here with their size are not fetched.

    Args:
        folder: The URL that their names are relative to.
        files: The objects.
        place: The folder to write into.
        stop: Set by another thread to end.
        pause: Seconds before another try.

    Raises:
        SourceError: As `transfer`.
    """
    for item in files:
        here = place.joinpath(*(safe_name(part) for part in item.name.split("/")))
        if here.exists() and here.stat().st_size == item.size:
            continue
        url = join(folder, item.name)
        fetch_object(url, item, here, Expected(url, item.size), stop, pause)


def verify_folder(row: Row, place: Path) -> str:
    """What is wrong with a slide of several files; "" where nothing is."""
    try:
        files = [f for f in place.rglob("*") if f.is_file() and not f.name.startswith(".")]
        if place.is_dir() and row.size is not None:
            size = sum(f.stat().st_size for f in files)
            if size != row.size:
                return f"its files have {size:,} bytes instead of {row.size:,}"
        if row.sha256 and sha256_of(place) != row.sha256:
            return "its sha256 is not that of the manifest"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return ""


def _confirmed(row: Row, place: Path) -> str:
    found = sha256_of(place)
    if row.sha256 and found != row.sha256:
        raise SourceError(
            f"{row.src} {row.slide}: its sha256 is not that of the manifest: it was replaced. List"
            " it again: python -m training.archive manifest"
        )
    return found


@contextlib.contextmanager
def _open(url: str, listed: Object, start: int, version: str) -> Iterator[Part]:
    """An object from a byte on, as long as it is the one that was listed."""
    import obstore

    now = f"{listed.size} {listed.etag}"
    begin = start if version == now else 0
    try:
        store, name = located(url)
        options: dict[str, object] = {"range": {"offset": begin}} if begin else {}
        if listed.etag and not listed.etag.startswith("W/"):
            options["if_match"] = listed.etag
        found = obstore.get(store, name, options=options)  # type: ignore[arg-type]
    except PathEncoderError:
        raise
    except Exception as error:
        raise _of(error, url) from without_details(error)
    yield Part(begin, int(found.meta["size"]), now, _chunks(found, url))


def _chunks(found: object, url: str) -> Iterator[bytes]:
    try:
        for chunk in found.stream(min_chunk_size=_CHUNK):  # type: ignore[attr-defined]
            yield bytes(chunk)
    except Exception as error:  # obstore's kinds of broken connections
        raise Broken(explain(error, url)) from None


def _of(error: Exception, url: str) -> Exception:
    """What an error of obstore means for a download."""
    name = type(error).__name__
    if name == "PreconditionError":
        return Replaced(f"{url}: it was replaced during the download. Run the command again")
    if name in _REFUSED:
        return Refused(f"{url}: {explain(error, url)}", _REFUSED[name])
    if isinstance(error, FileNotFoundError):
        return Refused(f"{url}: {explain(error, url)}", 404)
    return Broken(explain(error, url))
