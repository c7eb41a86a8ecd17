"""Outlines and points beside an image: GeoJSON of QuPath, XML of Aperio ImageScope."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import ImageError
from pathencoder.geojson import Ring, class_of, features_of, geometry_of, points_of, polygons_of
from pathencoder.heads.data.marks import Area, Marks, no_points
from pathencoder.walk import printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DETECTED = frozenset({"detection", "cell"})  # QuPath's objects that a program or a person counted
_UNUSED = frozenset({"tile", "root", "tma_core"})  # its objects that label nothing
_NO_CLASS = "description"  # an attribute that ImageScope gives every layer
_GEOMETRIES = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
    | {"GeometryCollection"}
)
_BAD = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class GeoJson:
    """A file of GeoJSON as QuPath exports it, in pixels of its image.

    Attributes:
        path: The file.
        regions: Annotations are regions of classes; else, where a file also holds detections or
            cells, those alone are the objects.
        only: "detection" or "annotation": which of QuPath's objects count, where the whole set
            decides it. "": the file decides.
    """

    path: Path
    regions: bool = False
    only: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.path)

    def read(self, mpp: float) -> Marks:
        """The areas and points; of a cell with a nucleus, the nucleus.

        Raises:
            ImageError: It cannot be read, or is no GeoJSON.
        """
        try:
            features = features_of(json.loads(self.path.read_bytes()))
            used, left_out = _chosen(features, regions=self.regions, only=self.only)
            types = {_type(feature) for feature in used}
            areas, points, names = [], [], []
            for feature in used:
                geometry = feature.get("nucleusGeometry") or geometry_of(feature)
                kind = class_of(feature)
                if polygons := polygons_of(geometry):
                    areas.append(Area(kind, polygons))
                found = points_of(geometry)
                points += found
                names += [kind] * len(found)
                if not polygons and not found:
                    left_out.append(_other(geometry["type"]))
        except _BAD as error:
            raise ImageError(
                f"{self.name}: no GeoJSON of outlines or points ({error}). Export from QuPath as a"
                " FeatureCollection"
            ) from error
        at = np.array(points, np.float64).reshape(-1, 2) - 0.5 if points else no_points()
        return Marks(
            areas=areas,
            points=at,
            names=names,
            left_out=_counted(left_out),
            kinds=kinds_of(types),
        )


@dataclass(frozen=True)
class ImageScope:
    """Annotations of Aperio ImageScope (.xml), as MoNuSeg and MoNuSAC use them.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.path)

    def read(self, mpp: float) -> Marks:
        """The regions as areas; their class is the first attribute or the name of their layer.

        Raises:
            ImageError: It cannot be read, or holds no annotations of ImageScope.
        """
        from xml.etree import ElementTree

        try:
            data = self.path.read_bytes()
            if b"<!DOCTYPE" in data[:4096] or b"<!ENTITY" in data[:4096]:
                raise ValueError("a document type, which ImageScope does not write")
            root = ElementTree.fromstring(data)
            if root.tag != "Annotations":
                raise ValueError(f"its first element is {root.tag}, not Annotations")
            found = [area for layer in root.iter("Annotation") for area in _regions(layer)]
        except (*_BAD, ElementTree.ParseError) as error:
            raise ImageError(
                f"{self.name}: no annotations of Aperio ImageScope ({error}). Save them from"
                " ImageScope again, or export GeoJSON"
            ) from error
        areas = [area for area in found if isinstance(area, Area)]
        left_out = [area for area in found if isinstance(area, str)]
        return Marks(areas=areas, left_out=_counted(left_out))


def closed(points: Sequence[Sequence[float]]) -> Ring:
    """Points as a closed ring.

    Raises:
        ValueError: There are fewer than three, or one is not finite.
    """
    ring = np.asarray(points, np.float64)[:, :2]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"an outline of {len(ring)} points, or of points that are no numbers")
    return ring if (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])


def _chosen(
    features: list[dict[str, Any]], *, regions: bool, only: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The features that are labels, and the kinds of those that are not."""
    kinds = [_type(feature) for feature in features]
    detected = any(kind in DETECTED for kind in kinds)
    left = _UNUSED if not detected else _UNUSED | (DETECTED if regions else {"annotation"})
    if regions and "annotation" not in kinds:
        left = _UNUSED
    if only:
        left = _UNUSED | ({"annotation"} if only == "detection" else DETECTED)
    used = [f for f, kind in zip(features, kinds, strict=True) if kind not in left]
    return used, [kind for kind in kinds if kind in left]


def _type(feature: dict[str, Any]) -> str:
    """QuPath's type of an object; "" without one."""
    return str((feature.get("properties") or {}).get("objectType") or "")


def kinds_of(types: Iterable[str]) -> frozenset[str]:
    """Which of detections (also cells) and annotations are among types of QuPath's objects."""
    found = {"detection" if kind in DETECTED else kind for kind in types}
    return frozenset(found & {"detection", "annotation"})


def _other(kind: str) -> str:
    """The kind of a geometry that labels nothing.

    Raises:
        ValueError: It is none of GeoJSON.
    """
    if kind not in _GEOMETRIES:
        raise ValueError(f"a geometry of the type {kind!r}")
    return kind


def _regions(layer: Element) -> Iterator[Area | str]:
    """The areas of a layer, and the kinds of what is none."""
    names = [layer.get("Name"), *(a.get("Name") for a in layer.iterfind("./Attributes/Attribute"))]
    kind = next((name for name in names if name and name.casefold() != _NO_CLASS), "")
    outer: list[list[Ring]] = []
    holes: list[Ring] = []
    for region in layer.iter("Region"):
        points = [[float(v.get("X", "")), float(v.get("Y", ""))] for v in region.iter("Vertex")]
        if len(points) < 3:
            yield f"region of {len(points)} points"
        elif region.get("NegativeROA") == "1":
            holes.append(closed(points))
        else:
            outer.append([closed(points)])
    for hole in holes:
        rings = next((rings for rings in outer if _within(hole, rings[0])), None)
        if rings is not None:
            rings.append(hole)
    yield from (Area(kind, [rings]) for rings in outer)


def _within(inner: Ring, outer: Ring) -> bool:
    """Whether the box of a ring lies in that of another."""
    return bool((inner.min(0) >= outer.min(0)).all() and (inner.max(0) <= outer.max(0)).all())


def _counted(kinds: Sequence[str]) -> list[str]:
    return [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
