"""TCGA through the Genomic Data Commons: its open slide images, one file a request.

The facts that this client relies on: `POST /files` lists with filters and pages; `GET /data/<uuid>`
gives one file and obeys Range; the MD5 of each file is in the list. Names of files are not unique
over releases, so a slide is identified by its file_id.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError
from training.archive.http import Client, SourceError
from training.archive.item import Item
from training.archive.row import Row
from training.archive.sources.base import expected_of, http_part, safe_name, verify_file
from training.archive.transfer import OpenAt, Part, transfer

URL = "https://api.gdc.cancer.gov/"
KINDS = {"diagnostic": "Diagnostic Slide", "tissue": "Tissue Slide"}
_PAGE = 1000
_FIELDS = "file_id,file_name,file_size,md5sum,state,access,cases.submitter_id,cases.primary_site"
_SITES = {"Bronchus and lung": "lung", "Corpus uteri": "uterus", "Cervix uteri": "cervix"}


class Gdc:
    """The slides of one project.

    Args:
        project: For example "TCGA-BRCA".
        kind: "diagnostic" (FFPE) or "tissue" (frozen).
        url: Of the service.
        pause: Seconds before another try.
    """

    local = False

    def __init__(
        self, project: str, kind: str = "diagnostic", url: str = "", pause: float = 0.5
    ) -> None:
        if kind not in KINDS or not project:
            raise ConfigError(
                f"gdc:{project}/{kind}: give gdc:PROJECT or gdc:PROJECT/KIND with a kind of"
                f" {', '.join(KINDS)}, for example gdc:TCGA-BRCA/diagnostic"
            )
        self.name = f"gdc:{project}/{kind}"
        self._project, self._kind, self._pause = project, kind, pause
        token = os.environ.get("GDC_TOKEN", "").strip()
        self.client = Client(
            "GDC",
            url or os.environ.get("GDC_URL", URL),
            {"X-Auth-Token": token} if token else {},
            advice="slides of TCGA are open and need no token: check the project and the file",
            pause=pause,
        )

    def items(self) -> Iterator[Item]:
        """The slides of the project, in the order of their file_id."""
        release = str(self.client.get("status").get("data_release", ""))
        wanted = {
            "access": ["open"],
            "data_type": ["Slide Image"],
            "experimental_strategy": [KINDS[self._kind]],
            "cases.project.project_id": [self._project],
        }
        filters = {
            "op": "and",
            "content": [
                {"op": "in", "content": {"field": field, "value": value}}
                for field, value in wanted.items()
            ],
        }
        start, total = 0, 1
        while start < total:
            data = self.client.post(
                "files",
                {
                    "filters": filters,
                    "fields": _FIELDS,
                    "format": "JSON",
                    "size": _PAGE,
                    "from": start,
                    "sort": "file_id:asc",
                },
            )["data"]
            total = int(data["pagination"]["total"])
            for hit in data["hits"]:
                yield self._item(hit, release)
            start += len(data["hits"])
            if start < total and not data["hits"]:
                raise SourceError(f"{self.name}: the list ends at {start} of {total} files")
        if not total:
            raise ConfigError(
                f"{self.name}: no open slide image of such a project. Check its name, for example"
                " TCGA-BRCA"
            )

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """See `Source.fetch`."""
        open_at: OpenAt = partial(self._open, row, replace(self.client, stop=stop))
        return transfer(open_at, place, expected_of(row), stop=stop, pause=self._pause)

    def verify(self, row: Row, place: Path) -> str:
        """See `Source.verify`."""
        return verify_file(row, place)

    @contextlib.contextmanager
    def _open(self, row: Row, client: Client, start: int, version: str) -> Iterator[Part]:
        """A file from a byte on; its version is its MD5, as the GDC states no ETag."""
        with http_part(client, f"data/{row.source_id}", start, version) as part:
            yield replace(part, version=row.checksum or part.version)

    def _item(self, hit: Mapping[str, Any], release: str) -> Item:
        cases = hit.get("cases") or [{}]
        state = str(hit.get("state") or "released")
        site = str(cases[0].get("primary_site") or "")
        return Item(
            src=self.name,
            source_id=str(hit["file_id"]),
            file=f"gdc/{safe_name(self._project)}/{safe_name(str(hit['file_name']))}",
            patient=str(cases[0].get("submitter_id") or ""),
            published=True,
            stain_class="he",
            stain="H&E",
            organ=_SITES.get(site, site.casefold()),
            size=int(hit["file_size"]),
            checksum=f"md5:{hit['md5sum']}" if hit.get("md5sum") else "",
            release=release,
            problem="" if state == "released" else f"its state at the GDC is {state!r}",
        )
