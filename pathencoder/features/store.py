"""Feature files: one for each slide or folder of tiles, with their provenance.

features = pathencoder.read_features("out/slide.h5")
features.rows, features.coords  # float32 [N, D], int64 [N, 2] in level-0 pixels
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import PathEncoderError, StoreError
from pathencoder.features import annotated, containers, layouts
from pathencoder.features.given import path_given
from pathencoder.features.identity import Stamp
from pathencoder.features.provenance import Provenance
from pathencoder.formats import file_kinds
from pathencoder.pretrained import catalogue
from pathencoder.slides.quality import COLUMNS
from pathencoder.spec import EncoderSpec

Rows = NDArray[np.float32]
_PICTURES = file_kinds.SLIDE_SUFFIXES | file_kinds.PLAIN_SUFFIXES | file_kinds.TIFF_SUFFIXES


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
        provenance: What decided the numbers; None: another program computed them.
        failures: The parts that could not be embedded.
        facts: Further attributes of the root.
        place: The positions of a slide's tiles; None for images.
        keys: The key of each row, for images.
        stamps: The size, times and hash of each image.
        layout: Of a slide's file; of images, "trident", "anndata" or "zarr".
        qc: Columns of `slides.quality.COLUMNS`: float32 [N] by name; none where they were not
            asked for.
    """

    provenance: Provenance | None
    failures: Sequence[Failure]
    facts: Mapping[str, Any]
    place: layouts.Place | None = None
    keys: Sequence[str] = ()
    stamps: Sequence[Stamp] = ()
    layout: str = "trident"
    qc: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


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
        layout: One of `layouts.LAYOUTS`.
        failures: The tiles or images that could not be embedded.
        attributes: All attributes of the root, of `coords` and of the rows.
        qc: The quality of a slide's tiles, where it was measured (`encode --qc`): float32 [N] by
            name: "qc_blur", "qc_pen", "qc_fold", "tissue". `slides.quality.COLUMNS` says what they
            mean.
    """

    rows: Rows
    coords: NDArray[Any] | None
    unit: str
    keys: list[str] | None
    layout: str
    failures: list[Failure]
    attributes: dict[str, Any]
    qc: dict[str, NDArray[np.float32]] = field(default_factory=dict)

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
    """Read a feature file of this package in any layout, or of TRIDENT, CLAM, STAMP or AnnData.

    Args:
        path: The .h5 or .h5ad file, or the .zarr folder.

    Returns:
        Its rows, coordinates or keys, failures and attributes. Of an AnnData file that another
        program wrote, `keys` are the names of its observations.

    Raises:
        ConfigError: It is no path.
        StoreError: It does not exist, is damaged, or holds no features.
        MissingExtra: It is a .zarr folder, and zarr is not installed.
    """
    place = path_given(path, "path")
    if not place.is_file() and not containers.is_zarr(place):
        if place.is_dir():
            raise StoreError(f"{path} is a folder: give one of its .h5 files")
        raise StoreError(
            f"{path} does not exist: give a file that `pathencoder encode` or"
            " pathencoder.encode_slide wrote"
        )
    try:
        with containers.opened(place, rows=True) as file:
            return _read(file, place)
    except PathEncoderError:
        raise
    except Exception as error:  # h5py raises most of Python's errors on damaged files
        if place.suffix.lower() in _PICTURES:
            raise StoreError(
                f"{path} is an image or a slide by its suffix, no feature file: encode it first,"
                f" `pathencoder encode {path} --out features`, and give the file in features"
            ) from error
        raise StoreError(
            f"{path} cannot be read as a feature file: {error}. If pathencoder wrote it, run the"
            " same command again with --overwrite"
        ) from error


def _read(file: Any, path: Path) -> FeatureFile:
    is_annotated = annotated.is_annotated(file)
    names = ("X",) if is_annotated else ("features", "feats", "patch_embeddings")
    name = next((n for n in names if n in file), None)
    if name is None or not hasattr(file[name], "dtype"):
        raise StoreError(
            f"{path} holds no features (datasets: {', '.join(file) or 'none'}). Give a file that"
            " `pathencoder encode` or pathencoder.encode_slide wrote"
        )
    rows = np.asarray(file[name][:], dtype=np.float32)
    if rows.ndim == 3 and rows.shape[0] == 1:  # some writers keep a batch axis
        rows = rows[0]
    if rows.ndim == 1:  # one vector of a slide, of TRIDENT or STAMP
        rows = rows[None]
    if is_annotated:
        return _read_annotated(file, rows, path)
    nodes = [file[n] for n in (name, "coords") if n in file]
    attributes = {k: containers.plain(v) for node in (*nodes, file) for k, v in node.attrs.items()}
    guess = (
        "stamp"
        if name != "features"
        else "trident"
        if "patch_size_level0" in attributes
        else "clam"
    )
    layout = str(attributes.get("layout") or guess)
    coords, unit = _coords(file, layout, attributes)
    keys = [str(k) for k in containers.text(file["keys"])] if "keys" in file else None
    failures, qc = read_failures(file), _columns(file)
    return FeatureFile(rows, coords, unit, keys, layout, failures, attributes, qc)


def _columns(group: Any) -> dict[str, NDArray[np.float32]]:
    """The quality of the tiles; none where it was not measured."""
    if not has_quality(group):
        return {}
    return {name: np.asarray(group[name][:], np.float32) for name in COLUMNS if name in group}


def has_quality(group: Any) -> bool:
    """Whether an open feature file, or the `obs` of one of AnnData's form, has these columns."""
    return next(iter(COLUMNS)) in group


def _read_annotated(file: Any, rows: Rows, path: Path) -> FeatureFile:
    attributes = annotated.read_attributes(file)
    layout, corners = "zarr" if path.is_dir() else "anndata", annotated.read_corners(file)
    unit = str(attributes.pop("unit", "px")) if corners is not None else ""
    if corners is None:
        coords: NDArray[Any] | None = None
    else:
        coords = corners.astype(np.float32) if unit == "um" else np.rint(corners).astype(np.int64)
    keys = annotated.read_obs_names(file) if corners is None else None
    failures, qc = read_failures(file), _columns(file["obs"])
    return FeatureFile(rows, coords, unit, keys, layout, failures, attributes, qc)


def _coords(
    file: Any, layout: str, attributes: Mapping[str, Any]
) -> tuple[NDArray[Any] | None, str]:
    if "coords" not in file:
        return None, ""
    coords = np.asarray(file["coords"][:])
    coords = coords[0] if coords.ndim == 3 and coords.shape[0] == 1 else coords
    if layout != "stamp":
        return coords.astype(np.int64), "px"
    mpp, stride = attributes.get("slide_mpp"), attributes.get("grid_stride_level0")
    if mpp is None:
        return coords.astype(np.float32), "um"
    pixels = coords.astype(np.float64) / mpp
    if stride is not None:
        origin = np.asarray(attributes["grid_origin_level0"], np.float64)
        pixels = layouts.exact_corners(pixels, origin, stride)
    return np.rint(pixels).astype(np.int64), "px"


def read_failures(file: Any) -> list[Failure]:
    """The failures that an open feature file lists."""
    if annotated.is_annotated(file):
        return [Failure(*row) for row in annotated.read_failed(file)]
    if "failed" not in file:
        return []
    return [Failure(*(str(v) for v in row)) for row in containers.text(file["failed"])]
