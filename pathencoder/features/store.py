"""Feature files: HDF5, one for each slide or folder of tiles, with their provenance.

features = pathencoder.read_features("out/slide.h5")
features.rows, features.coords  # float32 [N, D], int64 [N, 2] in level-0 pixels
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pathencoder._version import __version__
from pathencoder.errors import StoreError
from pathencoder.features import checksums, layouts
from pathencoder.features.identity import Stamp
from pathencoder.features.provenance import Provenance
from pathencoder.files import make_folder, whole_file
from pathencoder.pretrained import catalogue
from pathencoder.spec import EncoderSpec
from pathencoder.walk import printable

Rows = NDArray[np.float32]
_BLOCK = 4096  # rows written at a time
# The format of 2008, which every reader knows. Its metadata have checksums, so that damage is an
# error at once; reading a damaged file of the default format may never end.
_FORMAT = ("v108", "v108")


@dataclass(frozen=True)
class Failure:
    """A part of an input that could not be embedded.

    Attributes:
        part: The key of an image, or "x,y" of a slide's tile in level-0 pixels; "" for the whole
            input.
        reason: Why, as a sentence.
        kind: Name of the error's class.
    """

    part: str
    reason: str
    kind: str = "ImageError"


@dataclass(frozen=True)
class Content:
    """What a feature file holds beside its rows.

    Attributes:
        provenance: What decided the numbers.
        failures: The parts that could not be embedded.
        facts: Further attributes of the root.
        place: The positions of a slide's tiles; None for images.
        keys: The key of each row, for images.
        stamps: The size, times and hash of each image.
        layout: Of a slide's file.
    """

    provenance: Provenance
    failures: Sequence[Failure]
    facts: Mapping[str, Any]
    place: layouts.Place | None = None
    keys: Sequence[str] = ()
    stamps: Sequence[Stamp] = ()
    layout: str = "trident"


@dataclass(frozen=True)
class FeatureFile:
    """The content of a feature file.

    Attributes:
        rows: float32 [N, D]; [N, C, h, w] for dense features.
        coords: Top left corner of each tile, x and y in level-0 pixels, int64 [N, 2]. float32
            micrometres where `unit` is "um" (a file of STAMP that does not say the slide's mpp).
            None for images.
        unit: Of the coordinates: "px" or "um"; "" for images.
        keys: The key of each row, for images; None for a slide.
        layout: "trident", "clam" or "stamp".
        failures: The tiles or images that could not be embedded.
        attributes: All attributes of the root and of `coords`.
    """

    rows: Rows
    coords: NDArray[Any] | None
    unit: str
    keys: list[str] | None
    layout: str
    failures: list[Failure]
    attributes: dict[str, Any]

    @property
    def features(self) -> Rows:
        """`rows`, under the name of the dataset in the file."""
        return self.rows

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel of the slide; None where the file does not state it."""
        found = self.attributes.get("slide_mpp")
        return None if found is None else float(found)

    @property
    def spec(self) -> EncoderSpec | None:
        """The description of the encoder that made the rows, with its revision and sha256.

        None where the file names no encoder, or one that `list_encoders` does not have.
        """
        made_by = catalogue.catalogue().get(str(self.attributes.get("encoder")))
        if made_by is None:
            return None
        return dataclasses.replace(
            made_by,
            revision=self.attributes.get("revision"),
            sha256=self.attributes.get("sha256"),
        )

    @property
    def notes(self) -> list[str]:
        """What was noted when a slide was encoded, as sentences: its scale, tissue and tiles."""
        return str(self.attributes.get("notes", "")).splitlines()


def read_features(path: str | os.PathLike[str]) -> FeatureFile:
    """Read a feature file of this package in any layout, or of TRIDENT, CLAM or STAMP.

    Args:
        path: The .h5 file.

    Returns:
        Its rows, coordinates or keys, failures and attributes.

    Raises:
        StoreError: It does not exist, is damaged, or holds no features.
    """
    if not Path(path).is_file():
        if Path(path).is_dir():
            raise StoreError(f"{path} is a folder: give one of its .h5 files")
        raise StoreError(
            f"{path} does not exist: give a file that `pathencoder encode` or"
            " pathencoder.encode_slide wrote"
        )
    try:
        checksums.check(Path(path), rows=True)
        with h5py.File(path, "r") as file:
            return _read(file, Path(path))
    except StoreError:
        raise
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        raise StoreError(
            f"{path} cannot be read as a feature file: {error}. If pathencoder wrote it, run the"
            " same command again with --overwrite"
        ) from error


def write_features(
    path: Path,
    content: Content,
    count: int,
    row_shape: tuple[int, ...],
    rows: Callable[[int, int], Rows],
) -> None:
    """Write a feature file; it gets its name when all of it is on disk.

    Args:
        path: The .h5 file.
        content: What it holds beside its rows.
        count: Number of rows.
        row_shape: Shape of one row.
        rows: Returns the rows from start to stop, float32 [stop - start, *row_shape].

    Raises:
        StoreError: It cannot be written.
    """
    make_folder(path.parent)
    if content.layout == "clam":
        _write_tensor(layouts.tensor_path(path), count, row_shape, rows)
    with whole_file(path) as temporary:
        with h5py.File(temporary, "w", libver=_FORMAT, userblock_size=checksums.BLOCK) as file:
            data = file.create_dataset(
                layouts.feature_name(content.layout),
                shape=(count, *row_shape),
                dtype=layouts.feature_dtype(content.layout),
            )
            for start, stop in _blocks(count):
                data[start:stop] = rows(start, stop)
            _write_parts(file, content)
            _write_attributes(file, content, path)
            begin = (
                (data.id.get_offset() or checksums.BLOCK)
                if data.id.get_storage_size()
                else checksums.BLOCK
            )
            end = begin + data.id.get_storage_size()
        checksums.write(temporary, begin, end)


def _read(file: h5py.File, path: Path) -> FeatureFile:
    name = next((n for n in ("features", "feats", "patch_embeddings") if n in file), None)
    if name is None:
        raise StoreError(
            f"{path} holds no features (datasets: {', '.join(file) or 'none'}). Give a file that"
            " `pathencoder encode` or pathencoder.encode_slide wrote"
        )
    rows = np.asarray(file[name][:], dtype=np.float32)
    if rows.ndim == 3 and rows.shape[0] == 1:  # some writers keep a batch axis
        rows = rows[0]
    if rows.ndim == 1:  # one vector of a slide, of TRIDENT or STAMP
        rows = rows[None]
    attributes = {k: _plain(v) for k, v in file.attrs.items()}
    if "coords" in file:
        attributes = {**{k: _plain(v) for k, v in file["coords"].attrs.items()}, **attributes}
    guess = (
        "stamp"
        if name != "features"
        else "trident"
        if "patch_size_level0" in attributes
        else "clam"
    )
    layout = str(attributes.get("layout") or guess)
    coords, unit = _coords(file, layout, attributes)
    keys = [str(k) for k in file["keys"].asstr()[:]] if "keys" in file else None
    return FeatureFile(rows, coords, unit, keys, layout, read_failures(file), attributes)


def _coords(
    file: h5py.File, layout: str, attributes: Mapping[str, Any]
) -> tuple[NDArray[Any] | None, str]:
    if "coords" not in file:
        return None, ""
    coords = file["coords"][:]
    coords = coords[0] if coords.ndim == 3 and coords.shape[0] == 1 else coords
    if layout != "stamp":
        return coords.astype(np.int64), "px"
    mpp, stride = attributes.get("slide_mpp"), attributes.get("grid_stride_level0")
    if mpp is None:
        return coords.astype(np.float32), "um"
    pixels = coords.astype(np.float64) / mpp
    if stride is not None:
        pixels = layouts.exact_corners(pixels, attributes["grid_origin_level0"], stride)
    return np.rint(pixels).astype(np.int64), "px"


def read_failures(file: h5py.File) -> list[Failure]:
    """The failures that an open feature file lists."""
    if "failed" not in file:
        return []
    return [Failure(*(str(v) for v in row)) for row in file["failed"].asstr()[:]]


def _write_parts(file: h5py.File, content: Content) -> None:
    text = h5py.string_dtype()
    if content.place is not None:
        file.create_dataset("coords", data=layouts.coords_on_disk(content.layout, content.place))
    else:
        file.create_dataset("keys", data=np.array(content.keys, dtype=object), dtype=text)
        stats = np.array([stamp.stat for stamp in content.stamps], np.int64).reshape(-1, 3)
        file.create_dataset("sizes", data=stats[:, 0])
        file.create_dataset("times", data=stats[:, 1:])
        file.create_dataset(
            "hashes",
            data=np.array([stamp.content.hex().encode() for stamp in content.stamps], "S32"),
        )
    if content.failures:
        failed = np.array([[f.part, f.reason, f.kind] for f in content.failures], dtype=object)
        file.create_dataset("failed", data=failed, dtype=text)


def _write_attributes(file: h5py.File, content: Content, path: Path) -> None:
    settings = content.provenance.settings()
    facts = {
        "layout": content.layout,
        "pathencoder_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **settings,
        "recipe": json.dumps(settings),
        "failed_count": len(content.failures),
        **content.facts,
    }
    if content.place is not None:
        place = content.place
        facts |= {"slide_mpp": place.mpp, "tile_px": place.tile_px, "tile_side_level0": place.side}
        for where, values in layouts.attributes(
            content.layout, place, content.provenance.encoder, printable(path.parent)
        ).items():
            file[where].attrs.update(values)
    file.attrs.update({k: v for k, v in facts.items() if v is not None})


def _write_tensor(
    path: Path, count: int, row_shape: tuple[int, ...], rows: Callable[[int, int], Rows]
) -> None:
    import torch

    make_folder(path.parent)
    whole = np.empty((count, *row_shape), np.float32)
    for start, stop in _blocks(count):
        whole[start:stop] = rows(start, stop)
    with whole_file(path) as temporary:
        torch.save(torch.from_numpy(whole), temporary)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
