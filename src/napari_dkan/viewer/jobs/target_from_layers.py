"""The prediction target from the layers: a Points layer, drawn shapes, labels or the tissue."""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer, Points, Shapes
from shapely import transform
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ...errors import SpotsError
from ...inference.target import Target, target_from_region, target_from_spots
from ...spatial.coordinates import swap_xy
from ...spatial.spots import Spots
from ..layers.region_layers import (
    REGIONS_KEY,
    LabelOutlines,
    fit_labels_to_slide,
    get_label_outline,
    region_from_layer_shapes,
)
from ..session.pixel_size_sources import array_from_features, check_spot_array
from ..session.slide_images import GLASS_ADVICE
from ..session.slide_layer import (
    AXIS_LABELS,
    METADATA_PREFIX,
    MICROMETER_UNITS,
    ViewerSlide,
    layer_to_slide,
)
from ..session.viewer_session import ViewerSession
from ..session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from ...model import Checkpoint


# The last region of each layer and the hash of its shapes: the union of hundreds takes a while.
_region_cache: WeakKeyDictionary[Layer, tuple[bytes, BaseGeometry]] = WeakKeyDictionary()


def target_from_layers(
    session: ViewerSession,
    points: Points | None,
    regions: Shapes | Labels | None,
    labels: LabelOutlines | None = None,
) -> Target | None:
    """Return the target of the Predict button; None for clicks and while inputs are loading.

    Parameters
    ----------
    session : ViewerSession
    points, regions : layer or None
        The chosen layers.
    labels : LabelOutlines or None
        Traces the outlines of Labels layers; without it their last outlines are used.

    Raises
    ------
    DkanError
        States what is missing or wrong; shown in the panel.
    """
    settings, checkpoint = session.settings, session.checkpoint
    if settings.target_mode is TargetMode.CLICK or checkpoint is None or session.slide is None:
        return None
    slide = session.require_slide()
    size = slide.slide.width, slide.slide.height
    if session.predictors.feature_file(slide) is not None:
        return _target_from_features(session, slide, checkpoint, regions, labels)
    if settings.target_mode is TargetMode.SPOTS:
        if points is None:
            raise SpotsError("Add a Points layer with the spots, or drop a spot file.")
        check_spot_array(points, slide)
        source, area = f"The layer '{points.name}'", slide.slide.scan_area
        return target_from_spots(_read_spots(points, slide), *size, source, area, GLASS_ADVICE)
    if slide.tissue is None:
        return None  # being detected
    if settings.target_mode is TargetMode.REGION:
        drawn = _read_region(regions, slide, labels)
        if drawn is None:
            return None  # being traced
        region = drawn
    else:
        if slide.tissue.is_empty:
            raise SpotsError("No tissue was found on this slide; draw a region instead.")
        region = slide.tissue
    pitch_um = checkpoint.patch.um if settings.dense_grid else checkpoint.spot_pitch_um
    tissue = slide.tissue if settings.tissue_only else None
    return target_from_region(region, pitch_um, slide.mpp, *size, tissue)


def _target_from_features(
    session: ViewerSession,
    slide: ViewerSlide,
    checkpoint: Checkpoint,
    regions: Shapes | Labels | None,
    labels: LabelOutlines | None,
) -> Target | None:
    """Tiles of the slide's feature file."""
    features = session.predictors.loaded_features(slide, checkpoint)
    mode = session.settings.target_mode
    if mode is TargetMode.SPOTS:
        raise SpotsError(
            "A feature file has its own tiles; choose Region or Whole tissue, or clear it under "
            "Advanced."
        )
    region = _read_region(regions, slide, labels) if mode is TargetMode.REGION else None
    if features is None or (region is None and mode is TargetMode.REGION):
        return None  # being read
    return features.target_from_region(region)


def _read_region(
    layer: Shapes | Labels | None, slide: ViewerSlide, labels: LabelOutlines | None
) -> BaseGeometry | None:
    if layer is None or not len(layer.data):
        raise SpotsError("Draw a region on the slide, or take one from a file.")
    if isinstance(layer, Labels) and labels is not None:
        fit_labels_to_slide(layer, slide)
        outline = labels.outline_of(layer)
        if outline is None:
            return None
        if outline.is_empty:
            raise SpotsError(f"Nothing is painted in the layer '{layer.name}'.")
    return region_from_layer(layer, slide)


def _read_spots(layer: Points, slide: ViewerSlide) -> Spots:
    """The points in level-0 px, with array coordinates if the layer has them."""
    return Spots(layer_to_slide(layer, layer.data, slide), array_from_features(layer))


def region_from_layer(layer: Shapes | Labels, slide: ViewerSlide) -> BaseGeometry:
    """Return the shapes of a layer as one region in level-0 px; inner shapes are holes.

    The region of a Labels layer is the outline that was traced last.
    """
    if isinstance(layer, Labels):
        # napari's coordinates refer to the centre of a pixel.
        return transform(
            get_label_outline(layer), lambda xy: layer_to_slide(layer, swap_xy(xy) - 0.5, slide)
        )
    vertices = [layer_to_slide(layer, data, slide) for data in layer.data]
    content = sha1(layer.features.to_csv().encode())
    for kind, xy in zip(layer.shape_type, vertices, strict=True):
        content.update(kind.encode() + xy.tobytes())
    cached = _region_cache.get(layer)
    if cached is None or cached[0] != content.digest():
        region = region_from_layer_shapes(layer.shape_type, vertices, layer.features)
        cached = _region_cache[layer] = content.digest(), region
    return cached[1]


def add_regions_layer(session: ViewerSession) -> Shapes:
    """Add an empty Shapes layer over the slide with the polygon tool active."""
    slide = session.require_slide()
    layer = make_shapes_layer(MultiPolygon(), slide.mpp, "regions", "#00e5ff")
    layer.metadata[REGIONS_KEY] = True
    session.layers.attach(slide, layer)
    session.titles.set_title(layer, "regions")
    session.viewer.add_layer(layer)
    session.viewer.layers.selection.active = layer
    layer.mode = "add_polygon_lasso"
    return layer


def add_tissue_layer(session: ViewerSession) -> Shapes:
    """Add the outline of the tissue as editable shapes; edits change the tissue.

    Raises
    ------
    SpotsError
        If the tissue is not detected yet.
    """
    slide = session.require_slide()
    if slide.tissue is None:
        raise SpotsError("The tissue is still being looked for; try again in a moment.")
    layer = make_shapes_layer(slide.tissue, slide.mpp, "tissue", "#7cfc00")
    layer.metadata[METADATA_PREFIX] = "tissue"  # no region
    session.layers.attach(slide, layer)
    session.titles.set_title(layer, "tissue")
    session.viewer.add_layer(layer)
    session.viewer.layers.selection.active = layer

    def on_edited(event: object = None) -> None:
        slide.tissue = region_from_layer(layer, slide)
        session.tissue_edited.emit()

    layer.events.data.connect(on_edited)
    return layer


def make_shapes_layer(region: BaseGeometry, mpp: float, name: str, color: str) -> Shapes:
    """Return a region in level-0 px as shapes; holes are separate shapes."""
    rings = [swap_xy(r)[:-1] for p in _split_polygons(region) for r in _polygon_rings(p)]
    return Shapes(
        rings or None,
        ndim=2,
        shape_type="polygon",
        name=name,
        scale=(mpp, mpp),
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        edge_color=color,
        edge_width=12 / mpp,
        face_color="transparent",
    )


def _split_polygons(geometry: BaseGeometry) -> list[Polygon]:
    return list(geometry.geoms) if isinstance(geometry, MultiPolygon) else [geometry]


def _polygon_rings(polygon: Polygon) -> list[np.ndarray]:
    return [np.asarray(r.coords) for r in (polygon.exterior, *polygon.interiors)]
