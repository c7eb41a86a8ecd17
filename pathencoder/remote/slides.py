"""The slides below a URL, each with all of its files."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pathencoder.errors import SlideError
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, SLIDE_SUFFIXES, TIFF_SUFFIXES
from pathencoder.remote.objects import (
    Object,
    as_url,
    head,
    listing,
    split,
    store_of,
    unread,
    without_details,
)
from pathencoder.remote.signed import with_secrets, without_secrets
from pathencoder.slides.dicom import Header, read_header

_WHOLE = SLIDE_SUFFIXES | FOREIGN_SUFFIXES | TIFF_SUFFIXES  # suffixes of slides
_FRONT = 256 << 10  # bytes that hold a DICOM header up to its series


@dataclass(frozen=True)
class RemoteSlide:
    """One slide of a store.

    Attributes:
        url: Of the slide: of its file, or of the folder of a DICOM slide.
        folder: The URL that the names of `files` are relative to.
        files: All of its files, the one to open first.
        whole_folder: The folder is opened, not the first file (DICOM).
    """

    url: str
    folder: str
    files: tuple[Object, ...]
    whole_folder: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the secrets of the URL too, which it needs to read it."""
        facts = (self.folder, self.files, self.whole_folder)
        return _restored, (with_secrets(self.url), *facts)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def version(self) -> tuple[int, int, int]:
        """Bytes, the latest change in nanoseconds, and a number made of all ETags."""
        etags = hashlib.blake2b(digest_size=8)
        for file in sorted(self.files, key=lambda file: file.name):
            etags.update(f"{file.name}\0{file.etag}\0{file.size}\0".encode())
        number = int.from_bytes(etags.digest(), "little") >> 1  # fits a signed 64-bit number
        return self.size, max(file.modified for file in self.files), number


def _restored(url: str, *facts: Any) -> RemoteSlide:
    return RemoteSlide(without_secrets(url), *facts)


@dataclass(frozen=True)
class FoundRemote:
    """The slides below a URL, and what was left out, as (URL, reason)."""

    slides: list[RemoteSlide]
    left_out: list[tuple[str, str]]


def find_slides(url: str) -> FoundRemote:
    """The slides of a URL: one object, or everything below a prefix that ends with a slash.

    Args:
        url: s3://, gs://, az://, https:// or http://. Of a web server it names one file, and may
            be signed.

    Returns:
        The slides in the order of their names. Remote TIFFs count as slides.

    Raises:
        SlideError: There is no such object, it is not a slide, or the store does not answer.
        MissingExtra: obstore is not installed.
        ConfigError: The URL cannot be used.
    """
    url = without_secrets(as_url(url))
    if not url.endswith("/") and (found := head(url)) is not None:
        return FoundRemote([_one(url, found)], [])
    if url.startswith("http") and not url.endswith("/"):
        raise SlideError(f"{url}: no such file. Check the URL")
    folder = url.rstrip("/")
    objects = [o for o in listing(folder) if not _is_hidden(o.name) and o.size]
    if not objects:
        raise SlideError(f"{url}: no object has this name, or lies below it. Check the URL")
    return _grouped(folder, objects)


def _one(url: str, found: Object) -> RemoteSlide:
    """The slide of one object, with the files that belong to it."""
    folder, name = split(url)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _WHOLE:
        raise SlideError(
            f"{url}: not a slide by its suffix {suffix!r}. Copy images to this machine to encode"
            " them"
        )
    main = Object(name, found.size, found.etag, found.modified)
    if suffix not in (".mrxs", ".vms", ".vmu", ".vsi", ".dcm"):
        return RemoteSlide(url, folder, (main,))
    if url.startswith("http"):
        if suffix == ".dcm":
            return RemoteSlide(url, folder, (main,))
        raise SlideError(
            f"{url}: a {suffix} slide has more files, which a web server does not list. Copy them"
            " all to this machine"
        )
    beside = listing(folder)
    if suffix != ".dcm":
        return RemoteSlide(url, folder, (main, *_companions(name, beside)))
    series = {o.name: h for o, h in _headers(folder, _dicom_in("", beside)) if h.is_volume}
    own = series[name].series if name in series else ""
    same = [o for o in beside if o.name in series and series[o.name].series == own]
    return RemoteSlide(url, folder, (main, *(o for o in same if own and o.name != name)))


def _grouped(folder: str, objects: Sequence[Object]) -> FoundRemote:
    slides: list[RemoteSlide] = []
    used: set[str] = set()
    for item in objects:
        suffix = PurePosixPath(item.name).suffix.lower()
        if suffix in _WHOLE and suffix != ".dcm":
            files = (item, *_companions(item.name, objects))
            slides.append(RemoteSlide(f"{folder}/{item.name}", folder, files))
            used.update(file.name for file in files)
    for parent in sorted({_parent(o.name) for o in objects if _is_dicom(o.name)}):
        found = _dicom_slides(folder, parent, objects)
        slides += found
        used.update(o.name for o in _dicom_in(parent, objects))
    slides.sort(key=lambda slide: slide.url)
    return FoundRemote(slides, _summed_up(folder, (o.name for o in objects if o.name not in used)))


def _dicom_slides(folder: str, parent: str, objects: Sequence[Object]) -> list[RemoteSlide]:
    """The slides among the DICOM files of one folder: one a series, as for local folders."""
    files = _dicom_in(parent, objects)
    here = f"{folder}/{parent}".rstrip("/")
    if len(files) == 1:
        return [RemoteSlide(f"{folder}/{files[0].name}", folder, (files[0],))]
    series: dict[str, list[Object]] = {}
    for item, header in _headers(folder, files):
        if header.is_volume:
            series.setdefault(header.series, []).append(item)
    if len(series) < 2:
        chosen = next(iter(series.values()), files)
        return [RemoteSlide(here, folder, tuple(chosen), whole_folder=True)]
    return [RemoteSlide(f"{folder}/{own[0].name}", folder, tuple(own)) for own in series.values()]


def _headers(folder: str, files: Iterable[Object]) -> list[tuple[Object, Header]]:
    """The headers of DICOM files, of which only the front is read."""
    import obstore

    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, item in enumerate(files):
            front = Path(temporary) / f"{number}.dcm"  # headers are kept by path
            try:
                data = obstore.get_range(
                    store_of(folder), item.name, start=0, end=min(_FRONT, item.size)
                )
            except Exception as error:
                raise unread(error, f"{folder}/{item.name}") from without_details(error)
            front.write_bytes(bytes(data))
            if header := read_header(front):
                found.append((item, header))
    return found


def _companions(name: str, objects: Iterable[Object]) -> list[Object]:
    """The other files of a slide of several files, by the rules of its format."""
    stem, suffix = name[: -len(PurePosixPath(name).suffix)], PurePosixPath(name).suffix.lower()
    if suffix == ".mrxs":
        return [o for o in objects if o.name.startswith(f"{stem}/")]
    if suffix == ".vsi":
        inner = f"{_parent(name)}/_{PurePosixPath(stem).name}_/".lstrip("/")
        return [o for o in objects if o.name.startswith(inner)]
    if suffix in (".vms", ".vmu"):
        beside = (o for o in objects if _parent(o.name) == _parent(name) and o.name != name)
        return [o for o in beside if o.name.startswith(stem)]
    return []


def _dicom_in(parent: str, objects: Iterable[Object]) -> list[Object]:
    return [o for o in objects if _is_dicom(o.name) and _parent(o.name) == parent]


def _is_dicom(name: str) -> bool:
    return name.lower().endswith(".dcm")


def _is_hidden(name: str) -> bool:
    return bool(re.search(r"(^|/)\.", name))


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _summed_up(folder: str, names: Iterable[str]) -> list[tuple[str, str]]:
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without suffix" for name in names)
    if not kinds:
        return []
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(8))
    total = sum(kinds.values())
    are = "file is no slide" if total == 1 else "files are no slides"
    return [(folder, f"{total:,} {are} ({listed})")]
