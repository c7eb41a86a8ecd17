"""Feature files: HDF5, one a slide or a folder of tiles, written whole, with everything needed to know what made them.

features = pathencoder.read_features("out/slide.h5")
features.rows, features.coords  # float32 [N, D], int64 [N, 2] in level-0 pixels
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import pathencoder
from pathencoder.errors import StoreError
from pathencoder.features import checksums, layouts
from pathencoder.features.identity import SlideIdentity, Stamp, Stat
from pathencoder.features.provenance import Recipe
from pathencoder.files import Mismatch, make_folder, whole_file
from pathencoder.walk import printable

Rows = NDArray[np.float32]
_BLOCK = 4096  # rows written at a time
# Of 2008, which every reader knows. Its metadata have checksums: damage is an error at once, while
# HDF5 may read a damaged file of the
# default format without end.
_FORMAT = ("v108", "v108")


@dataclass(frozen=True)
class Failure:
    """A part of an input that could not be embedded: a tile's key, or "x,y" in level-0 pixels.

    empty: the whole input.
    """

    part: str
    reason: str
    kind: str = "ImageError"


@dataclass(frozen=True)
class Content:
    """What a feature file holds beside its rows.

    Coordinates (a slide) or keys and stamps (tiles), failures, facts.
    """

    recipe: Recipe
    failures: Sequence[Failure]
    facts: Mapping[str, Any]
    place: layouts.Place | None = None
    keys: Sequence[str] = ()
    stamps: Sequence[Stamp] = ()
    layout: str = "trident"


@dataclass(frozen=True)
class FeatureFile:
    """A feature file that was read.

    rows: float32 [N, D] ([N, C, h, w] for dense). coords: top left of each tile, level-0 pixels,
    int64 [N, 2]; float32 micrometres where
    `unit` is "um" (a STAMP file that does not say the slide's mpp); None for tiles. keys: one a row
    for tiles, None for a slide. attributes: all attributes of the root and of `coords`.
    """

    rows: Rows
    coords: NDArray[Any] | None
    unit: str
    keys: list[str] | None
    layout: str
    failures: list[Failure]
    attributes: dict[str, Any]


def read_features(path: str | Path) -> FeatureFile:
    """Read a feature file: ours in any layout, and those of TRIDENT, CLAM and STAMP. Raises StoreError for anything else."""
    if not Path(path).is_file():
        what = (
            "a folder: give one of its .h5 files"
            if Path(path).is_dir()
            else "not there: give a file that `pathencoder encode` wrote"
        )
        raise StoreError(f"{path} is {what}")
    try:
        checksums.check(Path(path), rows=True)
        with h5py.File(path, "r") as file:
            return _read(file, Path(path))
    except StoreError:
        raise
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        raise StoreError(
            f"{path} cannot be read as a feature file: {error}. If it was written here, run the"
            " command again"
        ) from error


def read_settings(path: Path) -> dict[str, Any] | None:
    """The recipe of a feature file that this package wrote; None for another's.

    Raises Mismatch for a damaged file.
    """
    with _reading(path) as file:
        text = file.attrs.get("recipe")
        return json.loads(text) if text else None


def write_features(
    path: Path,
    content: Content,
    count: int,
    row_shape: tuple[int, ...],
    rows: Callable[[int, int], Rows],
) -> None:
    """Write `count` rows, taken in blocks from rows(start, stop), under the final name once all is on disk. Raises StoreError."""
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


@dataclass(frozen=True)
class Parts:
    """The images of a tiles file.

    Attributes:
        folder: Where they were, absolute.
        known: Key of each row, in the file's order, and the stamp of its image.
        take: Reads the rows at ascending places.
        failures: The images that failed.
    """

    folder: str
    known: dict[str, Stamp]
    take: Callable[[Sequence[int]], Rows]
    failures: list[Failure]


def read_parts(path: Path) -> Parts:
    """The images of a tiles file that this package wrote. Raises Mismatch for a damaged file."""
    with _reading(path) as file:
        keys = [str(k) for k in file["keys"].asstr()[:]]
        stats = zip(
            file["sizes"][:].tolist(),
            file["times"][:].tolist(),
            file["hashes"][:].tolist(),
            strict=True,
        )
        stamps = [
            Stamp(Stat(size, *times), bytes.fromhex(text.decode())) for size, times, text in stats
        ]
        folder, failures = str(file.attrs["source_path"]), _failures(file)

    def take(places: Sequence[int]) -> Rows:
        with _reading(path) as file:
            return np.asarray(file["features"][list(places)], dtype=np.float32)

    return Parts(folder, dict(zip(keys, stamps, strict=True)), take, failures)


@dataclass(frozen=True)
class Facts:
    """What a slide's file says of itself without its rows.

    How many there are, what it was made of, what failed, what was noted.
    """

    count: int
    slide: SlideIdentity
    layout: str
    failures: list[Failure]
    notes: list[str]


def read_facts(path: Path) -> Facts:
    """The facts of a slide's file that this package wrote. Raises Mismatch for a damaged file."""
    with _reading(path) as file:
        said, layout = file.attrs, str(file.attrs["layout"])
        stat = Stat(int(said["slide_bytes"]), *(int(t) for t in said["slide_times"]))
        notes = str(said.get("notes", "")).splitlines()
        slide = SlideIdentity(str(said["slide_path"]), stat, str(said["slide_hash"]))
        return Facts(
            int(file[layouts.feature_name(layout)].shape[0]), slide, layout, _failures(file), notes
        )


def slide_facts(slide: SlideIdentity) -> dict[str, Any]:
    """The attributes from which `read_facts` makes a slide's identity again."""
    times = np.array(slide.stat[1:], np.int64)
    return {
        "slide_path": slide.path,
        "slide_bytes": slide.stat.size,
        "slide_times": times,
        "slide_hash": slide.content,
    }


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """A feature file of ours; whatever is wrong with it is a Mismatch."""
    try:
        checksums.check(path, rows=False)
        with h5py.File(path, "r") as file:
            yield file
    except StoreError:
        raise
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        raise Mismatch(f"{path} is damaged: {error}. Delete it, or use --overwrite") from error


def _read(file: h5py.File, path: Path) -> FeatureFile:
    name = next((n for n in ("features", "feats", "patch_embeddings") if n in file), None)
    if name is None:
        raise StoreError(
            f"{path} holds no features (datasets: {', '.join(file) or 'none'}). Give a file that"
            " `pathencoder encode` wrote"
        )
    rows = np.asarray(file[name][:], dtype=np.float32)
    if rows.ndim == 3 and rows.shape[0] == 1:  # some writers keep a batch axis
        rows = rows[0]
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
    return FeatureFile(rows, coords, unit, keys, layout, _failures(file), attributes)


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


def _failures(file: h5py.File) -> list[Failure]:
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
    settings = content.recipe.settings()
    facts = {
        "layout": content.layout,
        "pathencoder_version": pathencoder.__version__,
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
            content.layout, place, content.recipe.encoder, printable(path.parent)
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
