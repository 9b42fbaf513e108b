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
from ...spatial.polygons import combine, drawn_shapes, joined
from ...spatial.regions import NamedRegion
from ..slides import AXES, OURS, PIXELS, UNITS

if TYPE_CHECKING:
    import pandas as pd

KEY = f"{OURS} regions"  # of a layer's metadata
DEFAULT = "#00e5ff"
MOST_SHAPES = 2_000  # napari draws more too slowly to work with
MOST_VERTICES = 100_000
MOST_WORDS = 200  # names on the canvas; more are unreadable and slow
BY_HAND = -1  # the object of shapes that were drawn here


def region_layers(
    regions: Sequence[NamedRegion], name: str, mpp: float | None
) -> list[Shapes | Points]:
    """A Shapes layer of areas and lines, and a Points layer where there are points.

    Coordinates are level-0 px; mpp scales them to micrometres. Outlines of very many vertices are
    simplified, at first by half a pixel. Raises SpotsError when there are too many to draw.
    """
    drawn, points = _simplified(regions, name), []
    rings: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    table: dict[str, list[Any]] = {c: [] for c in _columns()}
    colours: list[str] = []
    for number, region in enumerate(drawn):
        colour = DEFAULT if region.colour is None else "#{:02x}{:02x}{:02x}".format(*region.colour)
        for part in _parts(region.geometry):
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
        layers.append(_shapes(rings, kinds, table, colours, name, mpp))
    if points:
        size = 60 / (mpp or 0.5)
        options = {**_place(mpp), "name": f"{name} (points)", "size": size, "ndim": 2}
        layers.append(Points(swap_xy(points), face_color=DEFAULT, **options))
    return layers


def _columns() -> dict[str, Any]:
    """Features of a shape, and what they are of one that is drawn here."""
    return {"label": "", "name": "", "classification": "", "hole": False, "object": BY_HAND}


def _shapes(
    rings: list[NDArray[np.float64]],
    kinds: list[str],
    table: dict[str, list[Any]],
    colours: list[str],
    name: str,
    mpp: float | None,
) -> Shapes:
    import pandas as pd

    some = sum(map(bool, table["label"])) <= MOST_WORDS
    words = {"string": "{label}", "size": 11, "color": "black", "anchor": "center"}
    return Shapes(
        rings,
        ndim=2,
        shape_type=kinds,
        features=pd.DataFrame(table),
        feature_defaults=_columns(),
        text=words if some else None,
        edge_color=colours,
        edge_width=12 / (mpp or 0.5),
        face_color="transparent",
        opacity=0.9,
        name=name,
        metadata={KEY: True},
        **_place(mpp),
    )


def _place(mpp: float | None) -> dict[str, Any]:
    scale, units = ((1.0, 1.0), PIXELS) if mpp is None else ((mpp, mpp), UNITS)
    return {"scale": scale, "units": units, "axis_labels": AXES}


def _parts(geometry: BaseGeometry) -> list[Any]:
    """Polygons, lines and points, out of collections too."""
    if hasattr(geometry, "geoms"):
        return [part for member in geometry.geoms for part in _parts(member)]
    return [] if geometry.is_empty else [geometry]


def _simplified(regions: Sequence[NamedRegion], name: str) -> list[NamedRegion]:
    geometries = [r.geometry for r in regions]
    outlines = sum(shapely.get_num_interior_rings(p) + 1 for g in geometries for p in _parts(g))
    if outlines > MOST_SHAPES:
        raise SpotsError(
            f"{name} holds {outlines:,} outlines, too many to edit here; export annotations "
            "without cells, or predict with --regions on the command line."
        )
    tolerance = 0.5
    while shapely.get_num_coordinates(geometries).sum() > MOST_VERTICES and tolerance < 1e3:
        geometries = list(shapely.simplify(geometries, tolerance))
        tolerance *= 2
    return [
        NamedRegion(g, r.name, r.classification, r.colour)
        for g, r in zip(geometries, regions, strict=True)
    ]


def region_of(
    kinds: Sequence[str], vertices: Sequence[NDArray[np.float64]], features: pd.DataFrame
) -> BaseGeometry:
    """The shapes of a layer as one region, vertices (x, y) in level-0 px.

    Objects of a file are joined, each without its own holes; what was drawn beside them is taken
    as always: a shape that lies wholly inside another is a hole in it.
    """
    if not {"hole", "object"} <= set(features.columns):
        return combine(drawn_shapes(kinds, vertices))
    by_object: dict[int, tuple[list[BaseGeometry], list[BaseGeometry]]] = {}
    by_hand: list[BaseGeometry] = []
    for kind, xy, hole, number in zip(
        kinds, vertices, features["hole"], features["object"], strict=True
    ):
        shapes = drawn_shapes([kind], [xy])
        if number == number and number >= 0:  # not NaN: napari fills so
            by_object.setdefault(int(number), ([], []))[bool(hole)].extend(shapes)
        else:
            by_hand += shapes
    objects = [joined(o).difference(joined(h)) if h else joined(o) for o, h in by_object.values()]
    whole = joined(objects)
    return combine([*([] if whole.is_empty else [whole]), *by_hand])
