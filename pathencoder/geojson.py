"""Read GeoJSON as QuPath exports it: features, polygons, points and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]  # [K, 2], x and y; the first point is repeated as the last


def features_of(data: Any) -> list[dict[str, Any]]:
    """The features of a parsed file.

    Args:
        data: A FeatureCollection, a list of features, one feature or one geometry.

    Returns:
        The features, in order.

    Raises:
        KeyError: Or TypeError: it is no GeoJSON.
    """
    if isinstance(data, list):
        return [f for part in data for f in features_of(part)]
    if data["type"] == "FeatureCollection":
        return list(data["features"])
    return [data] if data["type"] == "Feature" else [{"geometry": data}]


def geometry_of(feature: dict[str, Any]) -> dict[str, Any]:
    """Where a feature lies.

    Raises:
        ValueError: It lies nowhere, which GeoJSON allows.
    """
    found: dict[str, Any] | None = feature.get("geometry")
    if not found:
        name = feature.get("id") or class_of(feature) or "without a name"
        raise ValueError(f"the feature {name} has no geometry: draw or remove it")
    return found


def polygons_of(geometry: dict[str, Any]) -> list[list[Ring]]:
    """The polygons of a geometry: each its outer ring, then its holes.

    Raises:
        ValueError: A ring has fewer than three points, or a coordinate that is not finite.
    """
    kind = geometry["type"]
    if kind == "GeometryCollection":
        return [polygon for part in geometry["geometries"] for polygon in polygons_of(part)]
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    coordinates = geometry["coordinates"]
    several = [coordinates] if kind == "Polygon" else coordinates
    return [[_ring(ring) for ring in rings] for rings in several if rings]


def points_of(geometry: dict[str, Any]) -> list[list[float]]:
    """X and y of the points of a geometry."""
    kind = geometry["type"]
    if kind == "GeometryCollection":
        return [point for part in geometry["geometries"] for point in points_of(part)]
    if kind not in ("Point", "MultiPoint"):
        return []
    coordinates = geometry["coordinates"]
    several = [coordinates] if kind == "Point" else coordinates
    return [[float(point[0]), float(point[1])] for point in several]


def class_of(feature: dict[str, Any]) -> str:
    """The class of an annotation; "" without one."""
    found = (feature.get("properties") or {}).get("classification") or {}
    return str(found.get("name") or "/".join(found.get("names") or ()))


def _ring(coordinates: Any) -> Ring:
    ring = np.asarray(coordinates, np.float64)[:, :2]
    if len(ring) < 4 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} points")
    return ring
