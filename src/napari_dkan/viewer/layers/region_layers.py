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
        colour = (
            DEFAULT_REGION_COLOR
            if region.colour is None
            else "#{:02x}{:02x}{:02x}".format(*region.colour)
        )
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
    outlines = sum(
        shapely.get_num_interior_rings(p) + 1 for g in geometries for p in _flatten_geometry(g)
    )
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
    objects = [
        union_polygons(o).difference(union_polygons(h)) if h else union_polygons(o)
        for o, h in by_object.values()
    ]
    whole = union_polygons(objects)
    return combine_with_holes([*([] if whole.is_empty else [whole]), *by_hand])


EDGE_WIDTH_PX = 2.0
ZOOM_DEBOUNCE_MS = 150  # the view rests so long before outlines are drawn anew
MAX_RESCALED_VERTICES = (
    20_000  # more take too long to be drawn at every zoom; they stay as they are
)
MIN_WIDTH_RATIO = 1.15  # a change below this cannot be seen


class EdgeWidthSync:
    """Follows the zoom of a viewer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._debouncer = Debouncer(ZOOM_DEBOUNCE_MS, self._update_all)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)

    def update_edge_width(self, layer: Shapes) -> None:
        """Make a layer's outlines as wide as the zoom of now asks for."""
        wanted = EDGE_WIDTH_PX / self._viewer.scene.camera.zoom / abs(float(layer.scale[-1]))
        if not len(layer.data) or not wanted > 0:
            return
        ratio = wanted / max(float(layer.edge_width[0]), 1e-9)
        if not 1 / MIN_WIDTH_RATIO < ratio < MIN_WIDTH_RATIO:
            layer.edge_width = wanted

    def _on_zoom(self, event: object = None) -> None:
        self._debouncer.start()

    def _update_all(self) -> None:
        for layer in self._viewer.layers:
            ours = isinstance(layer, Shapes) and REGIONS_KEY in layer.metadata
            if ours and sum(map(len, layer.data)) <= MAX_RESCALED_VERTICES:
                self.update_edge_width(layer)


MAX_TRACED_SIZE = 8_192  # px; of larger layers every second, third, ... pixel is read

# outlines as they were traced last, or why they cannot be
_outline_cache: WeakKeyDictionary[Labels, BaseGeometry | str] = WeakKeyDictionary()


def get_label_outline(layer: Labels) -> BaseGeometry:
    """The region in the layer's own pixels (x, y), corner to corner; empty before it is traced."""
    known = _outline_cache.get(layer)
    return known if isinstance(known, BaseGeometry) else MultiPolygon()


class LabelOutlines:
    """Outlines of Labels layers, traced off the GUI thread and kept until the layer changes."""

    changed = Signal()  # an outline is there now

    def __init__(self) -> None:
        self._runner = JobRunner("labels")
        self._connected_layers: WeakKeyDictionary[Labels, bool] = WeakKeyDictionary()

    def outline_of(self, layer: Labels) -> BaseGeometry | None:
        """As `traced`, but None while it is being traced.

        Raises SpotsError when the layer cannot be one.
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
        known = _outline_cache.get(layer)
        if isinstance(known, str):
            raise SpotsError(known)
        if known is None and not self._runner.busy:
            self._trace(layer)
        return known

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

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
        found: list[BaseGeometry] = []

        def job() -> Iterator[None]:
            step = -(-max(data.shape) // MAX_TRACED_SIZE)
            labels = np.asarray(data[::step, ::step])
            mask = labels != 0 if only is None else labels == only
            regions = polygons_from_mask(mask, (step, step), name)
            found.append(regions.get(1, MultiPolygon()))
            yield

        def end(failure: JobFailure | None) -> None:
            _outline_cache[layer] = found[0] if failure is None else failure.message
            self.changed.emit()

        self._runner.start(job, lambda item: None, end)


def fit_labels_to_slide(layer: Labels, slide: ViewerSlide) -> None:
    """Lay labels that come as bare pixels, in no place of their own, over the whole slide.

    Their resolution is told by their size; where it does not fit they stay where they are.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    size = slide.slide.width, slide.slide.height
    bare = np.allclose(layer.scale, 1) and np.allclose(layer.translate, 0)
    if layer.ndim != 2 or not bare or slide.pixel_size is None:
        return
    try:
        x, y = mask_scale(shape, *size)
    except DkanError:
        return
    layer.scale = (y * slide.mpp, x * slide.mpp)
    # corner on corner: napari places the middle of a pixel
    layer.translate = ((y - 1) / 2 * slide.mpp, (x - 1) / 2 * slide.mpp)
    layer.units, layer.axis_labels = MICROMETER_UNITS, AXIS_LABELS
