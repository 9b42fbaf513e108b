"""Convert shapes to valid polygons, and combine polygons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely import make_valid, union_all
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

MAX_UNCHECKED_EDGES = 2_000  # however these cross, repairing them is fast
EDGE_SAMPLE_SIZE = 4_000  # edges whose crossings are counted to estimate the total
PAIRS_PER_QUERY = 4_000_000
MAX_CROSSINGS = 10_000_000


def ellipse_from_corners(corners: ArrayLike, points: int = 64) -> Polygon:
    """Return the ellipse inscribed in a parallelogram with these 4 corners (x, y)."""
    box = np.asarray(corners, dtype=np.float64)
    center, a, b = box.mean(axis=0), (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)[:, None]
    return Polygon(center + np.cos(angle) * a + np.sin(angle) * b)


def to_valid_polygons(geometry: BaseGeometry) -> BaseGeometry:
    """Return valid polygons: self-crossings are repaired, lines and points removed."""
    if isinstance(geometry, Polygon | MultiPolygon) and geometry.is_valid:
        return geometry
    fixed = make_valid(geometry)
    parts = [p for p in getattr(fixed, "geoms", [fixed]) if isinstance(p, Polygon | MultiPolygon)]
    return union_all(parts) if parts else MultiPolygon()


def union_polygons(shapes: Sequence[BaseGeometry]) -> BaseGeometry:
    """Return the union of the polygons of the shapes."""
    valid = [to_valid_polygons(s) for s in shapes]
    return valid[0] if len(valid) == 1 else to_valid_polygons(union_all(valid))


def combine_with_holes(shapes: Sequence[BaseGeometry]) -> BaseGeometry:
    """Combine shapes into one region; a shape completely inside another is a hole in it.

    Nesting alternates (an island inside a hole is filled again); shapes that only overlap are
    joined.
    """
    valid = [g for s in shapes if not (g := to_valid_polygons(s)).is_empty]
    if len(valid) < 2:
        return valid[0] if valid else MultiPolygon()
    depth = np.zeros(len(valid), np.int64)
    inner, outer = shapely.STRtree(valid).query(valid, predicate="within")
    for i, o in zip(inner, outer, strict=True):
        depth[i] += i != o and not valid[i].equals(valid[o])
    region: BaseGeometry = MultiPolygon()
    for level in np.unique(depth):
        layer = union_all([g for g, d in zip(valid, depth, strict=True) if d == level])
        region = region.difference(layer) if level % 2 else region.union(layer)
    return to_valid_polygons(region)


def polygons_from_shapes(kinds: Iterable[str], vertices: Iterable[ArrayLike]) -> list[BaseGeometry]:
    """Convert drawn shapes to polygons, without lines and paths, which enclose no area.

    Parameters
    ----------
    kinds
        napari's shape types.
    vertices
        (x, y) in level-0 px.
    """
    shapes: list[BaseGeometry] = []
    for kind, points in zip(kinds, vertices, strict=True):
        xy = np.asarray(points, dtype=np.float64)
        if kind == "ellipse":
            shapes.append(ellipse_from_corners(xy))
        elif kind in ("rectangle", "polygon") and len(xy) >= 3:
            shapes.append(Polygon(xy))
    return shapes


def has_too_many_crossings(shapes: Sequence[BaseGeometry]) -> bool:
    """Whether outlines cross so often that repairing or joining them would take gigabytes.

    Every crossing becomes a vertex, and n edges can cross n^2 / 4 times. The number is estimated
    from the bounding boxes that intersect those of a sample of edges.
    """
    edges = _ring_edges(shapes)
    if len(edges) <= MAX_UNCHECKED_EDGES:
        return False
    tree = shapely.STRtree(shapely.linestrings(edges))
    sample = np.arange(len(edges))
    if len(edges) > EDGE_SAMPLE_SIZE:
        sample = np.random.default_rng(0).choice(len(edges), EDGE_SAMPLE_SIZE, replace=False)
    limit = MAX_CROSSINGS * len(sample) / len(edges)
    step = max(1, PAIRS_PER_QUERY // len(edges))
    n_crossings = 0
    for start in range(0, len(sample), step):
        rows = sample[start : start + step]
        n_crossings += tree.query(tree.geometries[rows]).shape[1]
        if n_crossings > limit:
            return True
    return False


def _ring_edges(shapes: Sequence[BaseGeometry]) -> NDArray[np.float64]:
    """Return the edges of all rings, (N, 2, 2)."""
    parts = shapely.get_parts(np.asarray(shapes, dtype=object))
    rings = shapely.get_rings(parts[shapely.get_type_id(parts) == 3])
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    same_ring = ring[1:] == ring[:-1]
    return np.stack([xy[:-1][same_ring], xy[1:][same_ring]], axis=1)
