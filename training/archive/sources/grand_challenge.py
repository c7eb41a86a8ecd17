"""Archives of grand-challenge.org: three list calls and a download with Range.

`archives/?slug=` finds the archive, `archives/items/?archive=` its items, `cases/images/<pk>/` the
files of an image. A file's URL answers with a redirect to signed storage: it is asked with the
token, the storage without. When the signature expires, the file's URL is asked again. A slide of
DICOM files has no file: `cases/images/<pk>/dicom/instances/` lists a signed request for each.

The record of an image also holds the patient's number, name, birth date, sex and age. Of these only
the number is used, as a keyed hash.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pathencoder.errors import ConfigError
from training.archive.facts import sha256_of
from training.archive.http import Client, Refused, SourceError
from training.archive.item import Item
from training.archive.row import Row
from training.archive.sources.base import expected_of, http_part, safe_name, verify_file
from training.archive.sources.objects import verify_folder
from training.archive.transfer import Broken, Expected, Part, transfer

URL = "https://grand-challenge.org/api/v1/"
TOKEN = "GRAND_CHALLENGE_AUTHORIZATION"  # the variable that gcapi reads, too
_PAGE = 1000  # the server's maximum
_WANTED = ("TIFF",)  # kinds of files that are slides
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class GrandChallenge:
    """The slides of an archive.

    Args:
        slug: Of the archive, as in its address.
        url: Of the service; of another instance by GRAND_CHALLENGE_URL.
        pause: Seconds before another try.

    Raises:
        ConfigError: There is no token, or the URL would send it unencrypted.
    """

    local = False

    def __init__(self, slug: str, url: str = "", pause: float = 0.5) -> None:
        self.name, self._slug, self._pause = f"grand-challenge:{slug}", slug, pause
        base = url or os.environ.get("GRAND_CHALLENGE_URL", URL)
        base = base.rstrip("/") + "/"
        parts = urlsplit(base)
        if parts.scheme != "https" and parts.hostname not in _LOCAL:
            raise ConfigError(f"{base}: it would send the token unencrypted: use https://")
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise ConfigError(
                f"{self.name}: no token: make one on grand-challenge.org (your profile, API"
                f" tokens) and set it in the environment as {TOKEN}"
            )
        token = token.split()[-1]  # also "BEARER ..."
        self.client = Client(
            "grand-challenge.org",
            base,
            {"Authorization": f"BEARER {token}"},
            advice=(
                "it answers so, too, to an account that may not see it: ask the archive's editors"
                " for access, and check that the token is valid"
            ),
            pause=pause,
        )

    def items(self) -> Iterator[Item]:
        """The slides of the archive; an image that is in several items is listed once."""
        found = self.client.get("archives/", slug=self._slug)["results"]
        if len(found) != 1:
            raise ConfigError(
                f"{self.name}: {len(found)} archives have this slug for this account. Check it in"
                " the archive's address, and ask its editors for access"
            )
        seen: set[str] = set()
        for item in self._pages("archives/items/", archive=str(found[0]["pk"])):
            for value in item.get("values") or []:
                url = value.get("image")
                pk = PurePosixPath(urlsplit(str(url)).path).name if url else ""
                if pk and pk not in seen:
                    seen.add(pk)
                    socket = value.get("socket") or {}
                    yield self._item(self.client.get(self._image(pk)), str(socket.get("slug", "")))

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """See `Source.fetch`."""
        client = replace(self.client, stop=stop)
        if not PurePosixPath(row.file).suffix:
            return self._fetch_dicom(row, place, client)
        open_at = partial(self._open, row, client)
        return transfer(open_at, place, expected_of(row), stop=stop, pause=self._pause)

    def verify(self, row: Row, place: Path) -> str:
        """See `Source.verify`."""
        return (verify_folder if place.is_dir() else verify_file)(row, place)

    def _open(self, row: Row, client: Client, start: int, version: str) -> Any:
        """A file from a byte on, by a URL that was signed just now."""
        files = _slides_of(client.get(self._image(row.source_id)))
        if not files:
            raise SourceError(f"{self.name}: {row.slide}: it has no file any more")
        return http_part(client, str(files[0]["file"]), start, version)

    def _fetch_dicom(self, row: Row, place: Path, client: Client) -> str:
        """The files of a DICOM slide, as a folder; those that are here are whole."""
        listed = self._instances(row, client)
        if not listed:
            raise SourceError(f"{self.name}: {row.slide}: it has no file any more")
        for uid in listed:
            here = place / f"{safe_name(uid)}.dcm"
            if not here.exists():
                open_at = partial(self._instance, row, client, listed, uid)
                name = Expected(f"{self.name} {row.slide} {uid}")
                transfer(open_at, here, name, stop=client.stop, pause=self._pause)
        found = sha256_of(place)
        if row.sha256 and found != row.sha256:
            raise SourceError(f"{self.name}: {row.slide}: its sha256 is not that of the manifest")
        return found

    def _instances(self, row: Row, client: Client) -> dict[str, Mapping[str, Any]]:
        """Each DICOM file's request, which was signed just now."""
        found = client.get(f"{self._image(row.source_id)}dicom/instances/")["instances"]
        return {str(i["sop_instance_uid"]): i["get_instance"] for i in found}

    @contextlib.contextmanager
    def _instance(
        self,
        row: Row,
        client: Client,
        listed: dict[str, Mapping[str, Any]],
        uid: str,
        start: int,
        version: str,
    ) -> Iterator[Part]:
        """A DICOM file from a byte on; where its signature expired, all are asked for again."""
        request = listed[uid]
        url = str(request["url"])
        signed = dict(request.get("headers") or {})
        storage = replace(client, name="the storage", base=url, headers=signed)
        try:
            with http_part(storage, url, start, version) as part:
                yield part
        except Refused as error:
            listed |= self._instances(row, client)
            raise Broken(
                f"the request that was signed for it is refused ({error.status})"
            ) from None

    def _pages(self, path: str, **query: str) -> Iterator[Mapping[str, Any]]:
        start, count = 0, 1
        while start < count:
            page = self.client.get(path, **query, limit=_PAGE, offset=start)
            count = int(page["count"])
            yield from page["results"]
            start += len(page["results"])
            if start < count and not page["results"]:
                raise SourceError(f"{self.name}: the list ends at {start} of {count} items")

    def _image(self, pk: str) -> str:
        return f"cases/images/{safe_name(pk)}/"

    def _item(self, record: Mapping[str, Any], socket: str) -> Item:
        """A slide; of the record only the fields that are named here are used."""
        pk = str(record["pk"])
        files = _slides_of(record)
        suffix = PurePosixPath(urlsplit(str(files[0]["file"])).path).suffix if files else ""
        millimetres = record.get("voxel_width_mm")
        problem = "" if files or record.get("dicom_image_set") else "it has no TIFF"
        return Item(
            src=self.name,
            source_id=pk,
            file=f"grand-challenge/{safe_name(self._slug)}/{safe_name(pk)}{suffix}",
            patient=str(record.get("patient_id") or ""),
            mpp=1000 * float(millimetres) if millimetres else None,
            width=record.get("width"),
            height=record.get("height"),
            problem=problem,
            described=f"{record.get('name') or ''} {socket}",
        )


def _slides_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [f for f in record.get("files") or [] if f.get("image_type") in _WANTED]
