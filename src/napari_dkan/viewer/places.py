"""Where to predict, read from the canvas: a Points layer, drawn shapes, the tissue."""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer, Points, Shapes
from shapely import transform
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from ..inference.target import Target, region_target, spots_target
from ..spatial.coordinates import swap_xy
from ..spatial.spots import Spots
from .array_spots import ARRAY_COLUMNS as ARRAY_COLUMNS
from .on_slide import to_slide as _to_slide
from .regions.labels import LabelRegions, lay_on, traced
from .regions.shapes import region_of
from .session import OpenSlide, Session, Where
from .slides import AXES, UNITS

if TYPE_CHECKING:
    from ..model import Checkpoint


# what a layer's shapes came to last, as joining hundreds takes a while, and what told them apart
_joined: WeakKeyDictionary[Layer, tuple[bytes, BaseGeometry]] = WeakKeyDictionary()


def target_of(
    session: Session,
    points: Points | None,
    regions: Shapes | Labels | None,
    labels: LabelRegions | None = None,
) -> Target | None:
    """What pressing Predict would predict; None for clicks and while things load.

    labels : traces the outlines of Labels layers, without which they are taken as last traced.

    Raises SpotsError in the words the panel shows.
    """
    settings, checkpoint = session.settings, session.checkpoint
    if settings.where is Where.CLICK or checkpoint is None or session.slide is None:
        return None
    slide = session.ready_slide()
    size = slide.slide.width, slide.slide.height
    if session.feature_files.of(slide) is not None:
        return _of_file(session, slide, checkpoint, regions, labels)
    if settings.where is Where.SPOTS:
        if points is None:
            raise SpotsError("Add a Points layer with the spots, or drop a spot file.")
        return spots_target(_spots(points, slide), *size, f"The layer '{points.name}'")
    if slide.tissue is None:
        return None  # being found
    if settings.where is Where.REGION:
        found = _region(regions, slide, labels)
        if found is None:
            return None  # being traced
        region = found
    else:
        if slide.tissue.is_empty:
            raise SpotsError("No tissue was found on this slide; draw a region instead.")
        region = slide.tissue
    pitch_um = checkpoint.patch.um if settings.dense else checkpoint.spot_pitch_um
    tissue = slide.tissue if settings.tissue_only else None
    return region_target(region, pitch_um, slide.mpp, *size, tissue)


def _of_file(
    session: Session,
    slide: OpenSlide,
    checkpoint: Checkpoint,
    regions: Shapes | Labels | None,
    labels: LabelRegions | None,
) -> Target | None:
    """Tiles of the slide's feature file."""
    ready = session.feature_files.ready(slide, checkpoint, session.predictor_now())
    where = session.settings.where
    if where is Where.SPOTS:
        raise SpotsError(
            "A feature file has its own tiles; choose Region or Whole tissue, or clear it under "
            "Advanced."
        )
    region = _region(regions, slide, labels) if where is Where.REGION else None
    if ready is None or (region is None and where is Where.REGION):
        return None  # being read
    return ready.target(region)


def _region(
    layer: Shapes | Labels | None, slide: OpenSlide, labels: LabelRegions | None
) -> BaseGeometry | None:
    if layer is None or not len(layer.data):
        raise SpotsError("Draw a region on the slide, or take one from a file.")
    if isinstance(layer, Labels) and labels is not None:
        lay_on(layer, slide)
        found = labels.of(layer)
        if found is None:
            return None
        if found.is_empty:
            raise SpotsError(f"Nothing is painted in the layer '{layer.name}'.")
    return shapes_region(layer, slide)


def _spots(layer: Points, slide: OpenSlide) -> Spots:
    """The points in level-0 px, with array coordinates where the layer carries them."""
    xy = _to_slide(layer, layer.data, slide)
    features = layer.features
    array = None
    if all(c in features for c in ARRAY_COLUMNS):
        array = features[list(ARRAY_COLUMNS)].to_numpy().astype(np.int64)
    return Spots(xy, array)


def shapes_region(layer: Shapes | Labels, slide: OpenSlide) -> BaseGeometry:
    """Drawn shapes as one region in level-0 px; a shape inside another is a hole.

    Of labels the outline that was traced last.
    """
    if isinstance(layer, Labels):
        # napari counts from the middle of the first pixel
        return transform(traced(layer), lambda xy: _to_slide(layer, swap_xy(xy) - 0.5, slide))
    vertices = [_to_slide(layer, data, slide) for data in layer.data]
    told = sha1(layer.features.to_csv().encode())
    for kind, xy in zip(layer.shape_type, vertices, strict=True):
        told.update(kind.encode() + xy.tobytes())
    before = _joined.get(layer)
    if before is None or before[0] != told.digest():
        region = region_of(layer.shape_type, vertices, layer.features)
        before = _joined[layer] = told.digest(), region
    return before[1]


def add_regions_layer(session: Session) -> Shapes:
    """An empty Shapes layer over the slide, ready to draw polygons in."""
    slide = session.ready_slide()
    layer = shapes_of(MultiPolygon(), slide.mpp, f"regions, {slide.layer.name}", "#00e5ff")
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
    layer = shapes_of(slide.tissue, slide.mpp, f"tissue, {slide.layer.name}", "#7cfc00")
    session.put_on(slide, layer)
    session.viewer.add_layer(layer)
    session.viewer.layers.selection.active = layer

    def edited(event: object = None) -> None:
        slide.tissue = shapes_region(layer, slide)
        session.slide_edited.emit()

    layer.events.data.connect(edited)
    return layer


def shapes_of(region: BaseGeometry, mpp: float, name: str, colour: str) -> Shapes:
    """A region (level-0 px of a slide of so many um per px) as shapes; holes are shapes within."""
    rings = [swap_xy(r)[:-1] for p in _polygons(region) for r in _rings(p)]
    return Shapes(
        rings or None,
        ndim=2,
        shape_type="polygon",
        name=name,
        scale=(mpp, mpp),
        units=UNITS,
        axis_labels=AXES,
        edge_color=colour,
        edge_width=12 / mpp,
        face_color="transparent",
    )


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    return list(geometry.geoms) if isinstance(geometry, MultiPolygon) else [geometry]


def _rings(polygon: Polygon) -> list[np.ndarray]:
    return [np.asarray(r.coords) for r in (polygon.exterior, *polygon.interiors)]
