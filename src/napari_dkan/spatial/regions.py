"""Regions of interest: drawn shapes and GeoJSON files as one shapely geometry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from shapely import make_valid, union_all
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError

# what json and shapely raise on files that are something else, or are malformed
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ShapelyError,
    RecursionError,
)


def ellipse(corners: ArrayLike, points: int = 64) -> Polygon:
    """The ellipse inscribed in a parallelogram given by its 4 corners (x, y)."""
    box = np.asarray(corners, dtype=np.float64)
    centre, a, b = box.mean(axis=0), (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)[:, None]
    return Polygon(centre + np.cos(angle) * a + np.sin(angle) * b)


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Valid polygons only: self-crossings are mended, lines and points dropped."""
    fixed = make_valid(geometry)
    parts = [p for p in getattr(fixed, "geoms", [fixed]) if isinstance(p, Polygon | MultiPolygon)]
    return union_all(parts) if parts else MultiPolygon()


def combine(shapes: Sequence[BaseGeometry]) -> BaseGeometry:
    """One region from many shapes; a shape that lies wholly inside another is a hole in it.

    Nesting alternates (an island inside a hole is filled again); shapes that only
    overlap are joined.
    """
    valid = [g for s in shapes if not (g := polygonal(s)).is_empty]
    depth = [
        sum(outer.contains(inner) and not outer.equals(inner) for outer in valid) for inner in valid
    ]
    region: BaseGeometry = MultiPolygon()
    for level in sorted(set(depth)):
        layer = union_all([g for g, d in zip(valid, depth, strict=True) if d == level])
        region = region.difference(layer) if level % 2 else region.union(layer)
    return polygonal(region)


def read_geojson(path: str | Path) -> BaseGeometry:
    """The polygons of a GeoJSON file in level-0 px, as QuPath writes them, joined.

    Accepts a FeatureCollection, a Feature, a bare geometry or a list of these.
    Raises SpotsError naming the file when it is not GeoJSON or has no polygon.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        geometries = [shape(g) for g in _geometries(document)]
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except _UNREADABLE as error:
        raise SpotsError(
            f"{path.name} could not be read as GeoJSON; export it from QuPath with "
            "File > Export objects as GeoJSON."
        ) from error
    region = polygonal(union_all([polygonal(g) for g in geometries]))
    if region.is_empty:
        raise SpotsError(
            f"{path.name} holds no polygon; export annotations as GeoJSON (in QuPath: "
            "File > Export objects as GeoJSON)."
        )
    if not np.isfinite(region.bounds).all():
        raise SpotsError(f"{path.name} has coordinates that are not finite numbers.")
    return region


def _geometries(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from _geometries(item)
    elif isinstance(node, dict) and node.get("type") == "FeatureCollection":
        yield from _geometries(node["features"])
    elif isinstance(node, dict) and node.get("type") == "Feature":
        yield from _geometries(node["geometry"])
    elif isinstance(node, dict):
        yield node
    elif node is not None:
        raise TypeError(f"unexpected {type(node).__name__} in GeoJSON")


def from_drawn(kinds: Iterable[str], vertices: Iterable[ArrayLike]) -> BaseGeometry:
    """A region from drawn shapes: napari's shape types with (x, y) vertices in level-0 px."""
    shapes: list[BaseGeometry] = []
    for kind, points in zip(kinds, vertices, strict=True):
        xy = np.asarray(points, dtype=np.float64)
        if kind == "ellipse":
            shapes.append(ellipse(xy))
        elif kind in ("rectangle", "polygon") and len(xy) >= 3:
            shapes.append(Polygon(xy))
    return combine(shapes)
