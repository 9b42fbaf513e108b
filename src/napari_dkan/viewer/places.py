"""Where to predict, read from the canvas: a Points layer, drawn shapes, the tissue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Points, Shapes
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from ..inference.target import Target, region_target, spots_target
from ..spatial.coordinates import swap_xy
from ..spatial.regions import from_drawn
from ..spatial.spots import Spots
from .session import OpenSlide, Session, Where
from .slides import AXES, UNITS

ARRAY_COLUMNS = ("array_x", "array_y")  # features of a Points layer that lies on an array


def target_of(session: Session, points: Points | None, shapes: Shapes | None) -> Target | None:
    """What pressing Predict would predict; None for clicks and while things load.

    Raises SpotsError in the words the panel shows.
    """
    settings, checkpoint = session.settings, session.checkpoint
    if settings.where is Where.CLICK or checkpoint is None or session.slide is None:
        return None
    slide = session.ready_slide()
    size = slide.slide.width, slide.slide.height
    if settings.where is Where.SPOTS:
        if points is None:
            raise SpotsError("Add a Points layer with the spots, or drop a spot file.")
        return spots_target(_spots(points, slide), *size, f"The layer '{points.name}'")
    if slide.tissue is None:
        return None  # being found
    if settings.where is Where.REGION:
        if shapes is None or not len(shapes.data):
            raise SpotsError("Draw a region on the slide, then press Predict.")
        region = shapes_region(shapes, slide)
    else:
        if slide.tissue.is_empty:
            raise SpotsError("No tissue was found on this slide; draw a region instead.")
        region = slide.tissue
    pitch_um = checkpoint.patch.um if settings.dense else checkpoint.spot_pitch_um
    tissue = slide.tissue if settings.tissue_only else None
    return region_target(region, pitch_um, slide.mpp, *size, tissue)


def _spots(layer: Points, slide: OpenSlide) -> Spots:
    """The points in level-0 px, with array coordinates where the layer carries them."""
    xy = _to_slide(layer, layer.data, slide)
    features = layer.features
    array = None
    if all(c in features for c in ARRAY_COLUMNS):
        array = features[list(ARRAY_COLUMNS)].to_numpy().astype(np.int64)
    return Spots(xy, array)


def shapes_region(layer: Shapes, slide: OpenSlide) -> BaseGeometry:
    """Drawn shapes as one region in level-0 px; a shape inside another is a hole."""
    vertices = [_to_slide(layer, data, slide) for data in layer.data]
    return from_drawn(layer.shape_type, vertices)


def _to_slide(layer: Points | Shapes, data: np.ndarray, slide: OpenSlide) -> np.ndarray:
    """(N, 2) points of another layer as (x, y) level-0 px, through the world."""

    def moved(row: float, column: float) -> np.ndarray:
        world = layer.data_to_world((row, column))[-2:]
        return np.asarray(slide.layer.world_to_data(world)[-2:])

    # napari moves one point a call; what it does is affine, so three calls tell all of it
    origin = moved(0, 0)
    axes = np.stack([moved(1, 0) - origin, moved(0, 1) - origin])
    return swap_xy(np.asarray(data)[:, -2:] @ axes + origin)


def add_regions_layer(session: Session) -> Shapes:
    """An empty Shapes layer over the slide, ready to draw polygons in."""
    slide = session.ready_slide()
    layer = _shapes(slide, [], f"regions, {slide.layer.name}", "#00e5ff")
    session.put_on(slide, layer)
    session.viewer.add_layer(layer)
    session.viewer.layers.selection.active = layer
    layer.mode = "add_polygon_lasso"
    return layer


def add_tissue_layer(session: Session) -> Shapes:
    """The tissue's outline as shapes that can be edited; edits change what is tissue."""
    slide = session.ready_slide()
    if slide.tissue is None:
        raise SpotsError("The tissue is still being looked for; try again in a moment.")
    rings = [swap_xy(r)[:-1] for p in _polygons(slide.tissue) for r in _rings(p)]
    layer = _shapes(slide, rings, f"tissue, {slide.layer.name}", "#7cfc00")
    session.put_on(slide, layer)
    session.viewer.add_layer(layer)
    session.viewer.layers.selection.active = layer

    def edited(event: object = None) -> None:
        slide.tissue = shapes_region(layer, slide)
        session.slide_edited.emit()

    layer.events.data.connect(edited)
    return layer


def _shapes(slide: OpenSlide, rings: Sequence[np.ndarray], name: str, colour: str) -> Shapes:
    return Shapes(
        list(rings) or None,
        ndim=2,
        shape_type="polygon",
        name=name,
        scale=(slide.mpp, slide.mpp),
        units=UNITS,
        axis_labels=AXES,
        edge_color=colour,
        edge_width=12 / slide.mpp,
        face_color="transparent",
    )


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    return list(geometry.geoms) if isinstance(geometry, MultiPolygon) else [geometry]


def _rings(polygon: Polygon) -> list[np.ndarray]:
    return [np.asarray(r.coords) for r in (polygon.exterior, *polygon.interiors)]
