"""Regions as Shapes and Labels layers, and such layers as one region.

A napari shape has no holes. A hole is a separate shape next to its outline, marked in the
features of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from napari.layers import Labels, Points, Shapes
from numpy.typing import NDArray
from psygnal import Signal
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ...errors import DkanError, SpotsError
from ...spatial.coordinates import swap_xy
from ...spatial.masks import mask_scale, polygons_from_mask
from ...spatial.polygons import combine_with_holes, polygons_from_shapes, union_polygons
from ...spatial.region_files import NamedRegion
from ..session.slide_layer import (
    AXIS_LABELS,
    METADATA_PREFIX,
    MICROMETER_UNITS,
    PIXEL_UNITS,
    ViewerSlide,
)
from ..widgets.signal_connections import Debouncer
from ..worker import JobFailure, JobRunner

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel


REGIONS_KEY = f"{METADATA_PREFIX} regions"  # in the metadata of a layer
DEFAULT_REGION_COLOR = "#00e5ff"
MAX_SHAPES = 2_000  # napari is too slow with more
MAX_VERTICES = 100_000
MAX_SHAPE_LABELS = 200  # names on the canvas; more are unreadable and slow
# White with the dark edge of `NameHalos`.
LABEL_TEXT = {"string": "{label}", "size": 11, "color": "white", "anchor": "center"}
HAND_DRAWN_ID = -1  # object of shapes that the user drew


def make_region_layers(
    regions: Sequence[NamedRegion], name: str, mpp: float | None
) -> list[Shapes | Points]:
    """Return a Shapes layer of areas and lines, and a Points layer if there are points.

    Parameters
    ----------
    regions : sequence of NamedRegion
        In level-0 px. Outlines with very many vertices are simplified.
    name : str
    mpp : float or None
        um per level-0 px.

    Raises
    ------
    SpotsError
        If there are too many outlines to draw.
    """
    drawn, points = _simplify_regions(regions, name), []
    rings: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    table: dict[str, list[Any]] = {c: [] for c in default_features()}
    colors: list[str] = []
    for number, region in enumerate(drawn):
        color = (
            DEFAULT_REGION_COLOR
            if region.color is None
            else "#{:02x}{:02x}{:02x}".format(*region.color)
        )
        parts = _flatten_geometry(region.geometry)
        largest = max(parts, key=lambda part: part.area, default=None)  # which bears the name
        for part in parts:
            if part.geom_type == "Point":
                points.append((part.x, part.y))
                continue
            is_area = isinstance(part, Polygon)
            for i, ring in enumerate((part.exterior, *part.interiors) if is_area else (part,)):
                xy = np.asarray(ring.coords)[:, :2]
                rings.append(swap_xy(xy[:-1] if is_area else xy))
                kinds.append("polygon" if is_area else "path")
                colors.append(color)
                label = "" if i or part is not largest else region.label
                row = (label, region.name, region.classification, i > 0, number)
                for column, value in zip(table, row, strict=True):
                    table[column].append(value)
    layers: list[Shapes | Points] = []
    if rings:
        layers.append(_make_shapes(rings, kinds, table, colors, name, mpp))
    if points:
        size = 60 / (mpp or 0.5)
        options = {**_layer_transform(mpp), "name": f"{name} (points)", "size": size, "ndim": 2}
        layers.append(Points(swap_xy(points), face_color=DEFAULT_REGION_COLOR, **options))
    return layers


def default_features() -> dict[str, Any]:
    """Features of a shape and their values for shapes that the user draws."""
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

    has_few_labels = sum(map(bool, features["label"])) <= MAX_SHAPE_LABELS
    return Shapes(
        rings,
        ndim=2,
        shape_type=shape_types,
        features=pd.DataFrame(features),
        feature_defaults=default_features(),
        text=LABEL_TEXT if has_few_labels else None,
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
    """Polygons, lines and points, also those in collections."""
    if hasattr(geometry, "geoms"):
        return [part for member in geometry.geoms for part in _flatten_geometry(member)]
    return [] if geometry.is_empty else [geometry]


def _simplify_regions(regions: Sequence[NamedRegion], name: str) -> list[NamedRegion]:
    geometries = [r.geometry for r in regions]
    outlines = sum(
        shapely.get_num_interior_rings(p) + 1 for g in geometries for p in _flatten_geometry(g)
    )
    if outlines > MAX_SHAPES:
        raise SpotsError(
            f"{name} holds {outlines:,} outlines, too many to edit here; export annotations "
            "without cells, or a mask of them (PNG or TIFF)."
        )
    tolerance = 0.5
    while shapely.get_num_coordinates(geometries).sum() > MAX_VERTICES and tolerance < 1e3:
        geometries = list(shapely.simplify(geometries, tolerance))
        tolerance *= 2
    return [
        NamedRegion(g, r.name, r.classification, r.color)
        for g, r in zip(geometries, regions, strict=True)
    ]


def region_from_layer_shapes(
    shape_types: Sequence[str], vertices: Sequence[NDArray[np.float64]], features: pd.DataFrame
) -> BaseGeometry:
    """Combine the shapes of a layer into one region.

    Objects from a file are joined, each without its holes. Of other shapes, one that is entirely
    inside another of its class is a hole in it.

    Parameters
    ----------
    shape_types : sequence of str
    vertices : sequence of ndarray, (N, 2)
        (x, y) in level-0 px.
    features : DataFrame
        Columns as in `make_region_layers`, or others.
    """
    if not {"hole", "object"} <= set(features.columns):
        return combine_with_holes(polygons_from_shapes(shape_types, vertices))
    by_object: dict[int, tuple[list[BaseGeometry], list[BaseGeometry]]] = {}
    hand_drawn: list[BaseGeometry] = []
    by_class: dict[str, list[BaseGeometry]] = {}
    classes = features.get("classification", [""] * len(features))
    for kind, xy, hole, number, name in zip(
        shape_types, vertices, features["hole"], features["object"], classes, strict=True
    ):
        shapes = polygons_from_shapes([kind], [xy])
        if number == number and number >= 0:  # napari fills with NaN
            by_object.setdefault(int(number), ([], []))[bool(hole)].extend(shapes)
        elif isinstance(name, str) and name:
            by_class.setdefault(name, []).extend(shapes)
        else:
            hand_drawn += shapes
    objects = [
        union_polygons(o).difference(union_polygons(h)) if h else union_polygons(o)
        for o, h in by_object.values()
    ]
    objects += [combine_with_holes(shapes) for shapes in by_class.values()]
    whole = union_polygons(objects)
    return combine_with_holes([*([] if whole.is_empty else [whole]), *hand_drawn])


EDGE_WIDTH_PX = 2.0
ZOOM_DEBOUNCE_MS = 150
MAX_RESCALED_VERTICES = 20_000  # of a layer; more take too long to draw at every zoom
MIN_WIDTH_RATIO = 1.15  # smaller changes are invisible


class EdgeWidthSync:
    """Gives outlines a constant width on the screen."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._debouncer = Debouncer(ZOOM_DEBOUNCE_MS, self._update_all)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)

    def update_edge_width(self, layer: Shapes) -> None:
        """Set the width of a layer's outlines for the current zoom."""
        width = EDGE_WIDTH_PX / self._viewer.scene.camera.zoom / abs(float(layer.scale[-1]))
        if not len(layer.data) or not width > 0:
            return
        ratio = width / max(float(layer.edge_width[0]), 1e-9)
        if not 1 / MIN_WIDTH_RATIO < ratio < MIN_WIDTH_RATIO:
            layer.edge_width = width

    def _on_zoom(self, event: object = None) -> None:
        self._debouncer.start()

    def _update_all(self) -> None:
        for layer in self._viewer.layers:
            is_region = isinstance(layer, Shapes) and REGIONS_KEY in layer.metadata
            if is_region and sum(map(len, layer.data)) <= MAX_RESCALED_VERTICES:
                self.update_edge_width(layer)


MAX_TRACED_SIZE = 8_192  # px; larger layers are subsampled

# The last outline of each layer, or an error message.
_outline_cache: WeakKeyDictionary[Labels, BaseGeometry | str] = WeakKeyDictionary()


def get_label_outline(layer: Labels) -> BaseGeometry:
    """Return the outline in pixels of the layer (x, y) from its corner; empty before tracing."""
    outline = _outline_cache.get(layer)
    return outline if isinstance(outline, BaseGeometry) else MultiPolygon()


class LabelOutlines:
    """Outlines of Labels layers, traced in a thread and cached until the layer changes."""

    changed = Signal()  # an outline was traced or dropped

    def __init__(self) -> None:
        self._runner = JobRunner("labels")
        self._connected_layers: WeakKeyDictionary[Labels, bool] = WeakKeyDictionary()

    def outline_of(self, layer: Labels) -> BaseGeometry | None:
        """Return the outline as `get_label_outline`, or None while it is being traced.

        Raises
        ------
        SpotsError
            If the layer cannot be traced.
        """
        if layer.ndim != 2:
            raise SpotsError(f"The layer '{layer.name}' has {layer.ndim} dimensions; 2 are needed.")
        if layer not in self._connected_layers:
            self._connected_layers[layer] = True
            events = layer.events
            for event in (events.paint, events.data, events.labels_update):
                event.connect(lambda event=None, layer=layer: self._invalidate(layer))
            for event in (events.show_selected_label, events.selected_label):
                event.connect(lambda event=None, layer=layer: self._on_selection_changed(layer))
        outline = _outline_cache.get(layer)
        if isinstance(outline, str):
            raise SpotsError(outline)
        if outline is None and not self._runner.busy:
            self._trace(layer)
        return outline

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._runner.close()

    def _on_selection_changed(self, layer: Labels) -> None:
        if layer.show_selected_label or layer in _outline_cache:
            self._invalidate(layer)

    def _invalidate(self, layer: Labels) -> None:
        _outline_cache.pop(layer, None)
        self._runner.cancel()
        self.changed.emit()

    def _trace(self, layer: Labels) -> None:
        data: Any = layer.data[0] if layer.multiscale else layer.data
        name = f"The layer '{layer.name}'"
        only = layer.selected_label if layer.show_selected_label else None

        def job() -> Iterator[BaseGeometry]:
            step = -(-max(data.shape) // MAX_TRACED_SIZE)
            labels = np.asarray(data[::step, ::step])
            mask = labels != 0 if only is None else labels == only
            regions = polygons_from_mask(mask, (step, step), name)
            yield regions.get(1, MultiPolygon())

        def receive(outline: BaseGeometry) -> None:
            _outline_cache[layer] = outline

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                _outline_cache[layer] = failure.message
            self.changed.emit()

        self._runner.start(job, receive, end)


def fit_labels_to_slide(layer: Labels, slide: ViewerSlide) -> None:
    """Scale a Labels layer without a position of its own to the whole slide.

    Does nothing if its shape does not fit the slide.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    size = slide.slide.width, slide.slide.height
    is_unplaced = np.allclose(layer.scale, 1) and np.allclose(layer.translate, 0)
    if layer.ndim != 2 or not is_unplaced or slide.pixel_size is None:
        return
    try:
        x, y = mask_scale(shape, *size)
    except DkanError:
        return
    layer.scale = (y * slide.mpp, x * slide.mpp)
    # Corner on corner: napari positions the centre of a pixel.
    layer.translate = ((y - 1) / 2 * slide.mpp, (x - 1) / 2 * slide.mpp)
    layer.units, layer.axis_labels = MICROMETER_UNITS, AXIS_LABELS
