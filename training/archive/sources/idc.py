"""Slides of the NCI Imaging Data Commons: DICOM in a public bucket, listed offline.

The list is the Parquet file of the package idc-index-data: nothing is asked of a server until a
slide is fetched. Only the columns named here are read: not the patients' age and sex, and no date.
Each series is a slide; its files lie below one prefix. Licences are per series, CC BY or CC0.
"""

from __future__ import annotations

import importlib.metadata
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.remote.objects import listing
from training.archive.facts import sha256_of
from training.archive.http import SourceError
from training.archive.item import Item
from training.archive.row import Row
from training.archive.sources.base import safe_name
from training.archive.sources.objects import fetch_all, verify_folder
from training.data.values import nearest

_COLUMNS = (
    "collection_id",
    "PatientID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "license_short_name",
    "series_aws_url",
    "series_size_MB",
)
_LICENCES = {
    "CC BY 3.0": "CC-BY-3.0",
    "CC BY 4.0": "CC-BY-4.0",
    "CC BY-NC 4.0": "CC-BY-NC-4.0",
    "CC BY-NC 3.0": "N",
    "CC0": "CC0-1.0",
}


class Idc:
    """The slides of a collection.

    Args:
        collection: For example "tcga_brca" or "cgci_blgsp".
        index: The Parquet file to read; None: that of idc-index-data.
        pause: Seconds before another try.
    """

    local = False

    def __init__(self, collection: str, index: Path | None = None, pause: float = 0.5) -> None:
        self._collection = re.sub(r"[^a-z0-9]+", "_", collection.casefold())
        self.name, self._pause = f"idc:{self._collection}", pause
        self._index, self._organ = index, ""

    def items(self) -> Iterator[Item]:
        """The slide microscopy series of the collection.

        Raises:
            ConfigError: There is no such collection with slides.
            MissingExtra: pyarrow or idc-index-data is not installed.
        """
        path, release = self._listed()
        self._organ = _organ_of(self._collection) if self._index is None else ""
        rows, names = _read(path, self._collection)
        if not rows:
            near = nearest(self._collection, names)
            raise ConfigError(
                f"{self.name}: no slides in a collection of this name{near}. There are"
                f" {', '.join(sorted(names)[:40])}"
            )
        for row in rows:
            yield self._item(row, release)

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """See `Source.fetch`."""
        url = self._url(row)
        files = listing(url)
        if not files:
            raise SourceError(
                f"{url}: no files: the series was replaced in a newer version of the IDC. Update"
                " idc-index-data and list it again"
            )
        fetch_all(url, files, place, stop, self._pause)
        found = sha256_of(place)
        if row.sha256 and row.sha256 != found:
            raise SourceError(f"{url}: its sha256 is not that of the manifest: list it again")
        return found

    def verify(self, row: Row, place: Path) -> str:
        """See `Source.verify`."""
        return verify_folder(Row(slide=row.slide, sha256=row.sha256), place)

    def _listed(self) -> tuple[Path, str]:
        if self._index is not None:
            return self._index, ""
        try:
            import idc_index_data
        except ImportError as error:
            raise MissingExtra.of("archive", "The Imaging Data Commons as a source") from error
        version = importlib.metadata.version("idc-index-data")
        return Path(idc_index_data.IDC_INDEX_PARQUET_FILEPATH), f"v{version.partition('.')[0]}"

    def _url(self, row: Row) -> str:
        """The prefix of a series, which the checksum column keeps."""
        kind, _, url = row.checksum.partition(":")
        if kind != "prefix" or not url.startswith("s3://"):
            raise SourceError(f"{row.slide}: its row has no place in the bucket: list it again")
        return url

    def _item(self, row: Mapping[str, Any], release: str) -> Item:
        series, text = str(row["SeriesInstanceUID"]), str(row["SeriesDescription"] or "")
        maker = " ".join(str(row[c] or "") for c in ("Manufacturer", "ManufacturerModelName"))
        maker = maker.partition(" converted by")[0]  # many files were converted from SVS
        collection = self._collection
        return Item(
            src=self.name,
            source_id=series,
            file=f"idc/{collection}/{safe_name(series)}",
            patient=str(row["PatientID"] or ""),
            published=True,
            stain_class="he" if collection.startswith("tcga_") else "",
            stain="H&E" if collection.startswith("tcga_") else "",
            organ=str(row["BodyPartExamined"] or "").casefold() or self._organ,
            scanner="" if maker.startswith("PixelMed") else maker.strip(),
            licence=_LICENCES.get(str(row["license_short_name"] or ""), "N"),
            size=round(float(row["series_size_MB"] or 0) * 1e6) or None,
            checksum=f"prefix:{str(row['series_aws_url']).rstrip('*').rstrip('/')}",
            release=release,
            described=text,
        )


def _organ_of(collection: str) -> str:
    """The organ of a collection of one organ, by the package's list; "" otherwise."""
    import idc_index_data
    import pyarrow.parquet as pq

    about = getattr(idc_index_data, "INDEX_METADATA", {}).get("collections_index", {})
    path = about.get("parquet_filepath")
    if path is None:  # an older release
        return ""
    names = ["collection_id", "tumor_locations"]
    rows = pq.read_table(path, columns=names).to_pylist()
    found = {row["collection_id"]: str(row["tumor_locations"] or "") for row in rows}
    organ = found.get(collection, "").casefold()
    return "" if organ == "various" or "," in organ else organ


def _read(path: Path, collection: str) -> tuple[list[dict[str, Any]], set[str]]:
    """The series of a collection, and the names of all collections with slides."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra.of("archive", "The Imaging Data Commons as a source") from error
    try:
        table = pq.read_table(path, columns=list(_COLUMNS), filters=[("Modality", "=", "SM")])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{path}: the list of the IDC has another form than this version knows ({error}):"
            " install the idc-index-data that pyproject.toml names"
        ) from error
    rows = table.to_pylist()
    names = {str(row["collection_id"]) for row in rows}
    return [row for row in rows if row["collection_id"] == collection], names
