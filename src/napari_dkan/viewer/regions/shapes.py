"""Named regions as shapes on a slide, and such shapes as one region again.

A shape of napari's has no holes: a hole is a shape of its own beside its outline, marked in the
layer's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from napari.layers import Points, Shapes
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ...errors import SpotsError
from ...spatial.coordinates import swap_xy
from ...spatial.polygons import combine_with_holes, polygons_from_shapes, union_polygons
from ...spatial.regions import NamedRegion
from ..slides import AXIS_LABELS, METADATA_PREFIX, PIXEL_UNITS, MICROMETER_UNITS

if TYPE_CHECKING:
    import pandas as pd

REGIONS_KEY = f"{METADATA_PREFIX} regions"  # of a layer's metadata
DEFAULT_REGION_COLOR = "#00e5ff"
MAX_SHAPES = 2_000  # napari draws more too slowly to work with
MAX_VERTICES = 100_000
MAX_SHAPE_LABELS = 200  # names on the canvas; more are unreadable and slow
HAND_DRAWN_ID = -1  # the object of shapes that were drawn here


def make_region_layers(
    regions: Sequence[NamedRegion], name: str, mpp: float | None
) -> list[Shapes | Points]:
    """A Shapes layer of areas and lines, and a Points layer where there are points.

    Coordinates are level-0 px; mpp scales them to micrometres. Outlines of very many vertices are
    simplified, at first by half a pixel. Raises SpotsError when there are too many to draw.
    """
    drawn, points = _simplify_regions(regions, name), []
    rings: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    table: dict[str, list[Any]] = {c: [] for c in _default_features()}
    colours: list[str] = []
    for number, region in enumerate(drawn):
        colour = DEFAULT_REGION_COLOR if region.colour is None else "#{:02x}{:02x}{:02x}".format(*region.colour)
        for part in _flatten_geometry(region.geometry):
            if part.geom_type == "Point":
                points.append((part.x, part.y))
                continue
            area = isinstance(part, Polygon)
            for i, ring in enumerate((part.exterior, *part.interiors) if area else (part,)):
                xy = np.asarray(ring.coords)[:, :2]
                rings.append(swap_xy(xy[:-1] if area else xy))
                kinds.append("polygon" if area else "path")
                colours.append(colour)
                row = ("" if i else region.label, region.name, region.classification, i > 0, number)
                for column, value in zip(table, row, strict=True):
                    table[column].append(value)
    layers: list[Shapes | Points] = []
    if rings:
        layers.append(_make_shapes(rings, kinds, table, colours, name, mpp))
    if points:
        size = 60 / (mpp or 0.5)
        options = {**_layer_transform(mpp), "name": f"{name} (points)", "size": size, "ndim": 2}
        layers.append(Points(swap_xy(points), face_color=DEFAULT_REGION_COLOR, **options))
    return layers


def _default_features() -> dict[str, Any]:
    """Features of a shape, and what they are of one that is drawn here."""
    return {"label": "", "name": "", "classification": "", "hole": False, "object": HAND_DRAWN_ID}


def _make_shapes(
    rings: list[NDArray[np.float64]],
    shape_types: list[str],
    features: dict[str, list[Any]],
    colors: list[str],
    name: str,
    mpp: float | None,
) -> Shapes:
    import pandas as pd

    some = sum(map(bool, features["label"])) <= MAX_SHAPE_LABELS
    words = {"string": "{label}", "size": 11, "color": "black", "anchor": "center"}
    return Shapes(
        rings,
        ndim=2,
        shape_type=shape_types,
        features=pd.DataFrame(features),
        feature_defaults=_default_features(),
        text=words if some else None,
        edge_color=colors,
        edge_width=12 / (mpp or 0.5),
        face_color="transparent",
        opacity=0.9,
        name=name,
        metadata={REGIONS_KEY: True},
        **_layer_transform(mpp),
    )


def _layer_transform(mpp: float | None) -> dict[str, Any]:
    scale, units = ((1.0, 1.0), PIXEL_UNITS) if mpp is None else ((mpp, mpp), MICROMETER_UNITS)
    return {"scale": scale, "units": units, "axis_labels": AXIS_LABELS}


def _flatten_geometry(geometry: BaseGeometry) -> list[Any]:
    """Polygons, lines and points, out of collections too."""
    if hasattr(geometry, "geoms"):
        return [part for member in geometry.geoms for part in _flatten_geometry(member)]
    return [] if geometry.is_empty else [geometry]


def _simplify_regions(regions: Sequence[NamedRegion], name: str) -> list[NamedRegion]:
    geometries = [r.geometry for r in regions]
    outlines = sum(shapely.get_num_interior_rings(p) + 1 for g in geometries for p in _flatten_geometry(g))
    if outlines > MAX_SHAPES:
        raise SpotsError(
            f"{name} holds {outlines:,} outlines, too many to edit here; export annotations "
            "without cells, or predict with --regions on the command line."
        )
    tolerance = 0.5
    while shapely.get_num_coordinates(geometries).sum() > MAX_VERTICES and tolerance < 1e3:
        geometries = list(shapely.simplify(geometries, tolerance))
        tolerance *= 2
    return [
        NamedRegion(g, r.name, r.classification, r.colour)
        for g, r in zip(geometries, regions, strict=True)
    ]


def region_from_layer_shapes(
    shape_types: Sequence[str], vertices: Sequence[NDArray[np.float64]], features: pd.DataFrame
) -> BaseGeometry:
    """The shapes of a layer as one region, vertices (x, y) in level-0 px.

    Objects of a file are joined, each without its own holes; what was drawn beside them is taken
    as always: a shape that lies wholly inside another is a hole in it.
    """
    if not {"hole", "object"} <= set(features.columns):
        return combine_with_holes(polygons_from_shapes(shape_types, vertices))
    by_object: dict[int, tuple[list[BaseGeometry], list[BaseGeometry]]] = {}
    by_hand: list[BaseGeometry] = []
    for kind, xy, hole, number in zip(
        shape_types, vertices, features["hole"], features["object"], strict=True
    ):
        shapes = polygons_from_shapes([kind], [xy])
        if number == number and number >= 0:  # not NaN: napari fills so
            by_object.setdefault(int(number), ([], []))[bool(hole)].extend(shapes)
        else:
            by_hand += shapes
    objects = [union_polygons(o).difference(union_polygons(h)) if h else union_polygons(o) for o, h in by_object.values()]
    whole = union_polygons(objects)
    return combine_with_holes([*([] if whole.is_empty else [whole]), *by_hand])
