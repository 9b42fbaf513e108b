"""Layers of several value maps over the same tiles or spots of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from napari.components.overlays import ColorBarOverlay, TextOverlay
from napari.layers import Image, Layer, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from psygnal import Signal

from .....spatial.coordinates import swap_xy
from .....spatial.spots import Spots
from .....spatial.tile_grid import TileGrid
from ....layers.canvas_legend import GENE_LEGEND
from ....layers.contrast_limits import percentile_limits
from ....layers.map_grid import MapGrid
from ....session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide
from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import MapLayout
from ..quality_controller import QualityController
from .section_maps import SECTION_LEGEND as SPOTS_LEGEND

VALUE_MAPS_LEGEND = "napari_dkan_maps_legend"
VALUE_COLUMN = "value"


@dataclass(frozen=True, eq=False)
class MapGeometry:
    """Where the values lie: spots, or with ``grid`` the tiles of one; None: layers of others."""

    slide: ViewerSlide
    spots: Spots | None = None
    grid: TileGrid | None = None


@dataclass(frozen=True, eq=False)
class ValueMap:
    """One map: its layer's name, (N,) values, contrast limits and colours."""

    name: str
    values: NDArray[np.floating]
    limits: tuple[float, float]
    colormap: str | Colormap


class ValueMapLayers:
    """The maps of one question, side by side or stacked; those of the next take their place."""

    changed = Signal()

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        self._quality, self._session = quality, quality.session
        self._grid = MapGrid(self._session.viewer)
        self.geometry: MapGeometry | None = None
        self.layers: list[Layer] = []
        self._caption, self._hidden_legends = "", set[str]()
        session = self._session
        connections.connect(self._on_layer_removed, session.viewer.layers.events.removed)
        connections.connect(self._update_legends, session.gene_changed, session.settings_changed)

    @property
    def is_side_by_side(self) -> bool:
        return self._grid.is_active

    def show(self, geometry: MapGeometry, maps: list[ValueMap], caption: str) -> None:
        """Draw the maps, in the layers that are there if they are of the same places."""
        fresh = geometry is not self.geometry or len(self.layers) != len(maps)
        if fresh:
            opacity = self._session.settings.opacity
            layers = [_make_layer(geometry, m.name, opacity) for m in maps]
            self.set_layers(geometry, layers, caption, apply_layout=False)
        self._caption = caption
        for layer, made in zip(self.layers, maps, strict=True):
            _draw_values(layer, geometry, made)
        if fresh:
            self.set_side_by_side(True)
        self._update_legends()

    def set_layers(
        self, geometry: MapGeometry, layers: list[Layer], caption: str, apply_layout: bool = True
    ) -> None:
        """Show these layers, each in a cell of its own, instead of those before.

        caption : what they measure.
        """
        self.remove()
        self._caption = caption
        for layer in layers:
            self._session.layers.attach(geometry.slide, layer)
        self.layers, self.geometry = layers, geometry
        model = self._session.viewer.layers
        selected = set(model.selection)
        for layer in layers:
            model.append(layer)
        model.selection = selected
        if apply_layout:
            self.set_side_by_side(True)

    def set_side_by_side(self, side_by_side: bool) -> None:
        """Side by side, or one over the other on the slide."""
        if side_by_side and self.geometry is not None:
            self._quality.set_layout(MapLayout.STACKED)  # the canvas has one grid
            self._grid.enter(self.geometry.slide.layer, self.layers)
        else:
            self._grid.leave()
        self._update_legends()
        self.changed.emit()

    def _update_legends(self, event: object = None) -> None:
        """While these maps have the canvas, its text is about them."""
        overlays, on = self._session.viewer.canvas.overlays, self._grid.is_active
        for name in (GENE_LEGEND, SPOTS_LEGEND):
            if name not in overlays:
                continue
            if on and overlays[name].visible:
                overlays[name].visible = False
                self._hidden_legends.add(name)
            elif not on and name in self._hidden_legends:
                overlays[name].visible = True
        self._hidden_legends = self._hidden_legends if on else set()
        if VALUE_MAPS_LEGEND not in overlays:
            if not on:
                return
            overlays[VALUE_MAPS_LEGEND] = TextOverlay(position="top_left", font_size=9)
        overlays[VALUE_MAPS_LEGEND].text, overlays[VALUE_MAPS_LEGEND].visible = self._caption, on

    def remove(self) -> None:
        """Take the maps away; the canvas becomes as it was."""
        mine, self.layers, self.geometry = self.layers, [], None
        if not mine:
            return
        self._grid.leave()
        self._update_legends()
        layers = self._session.viewer.layers
        for layer in mine:
            if layer in layers:
                layers.remove(layer)
        self.changed.emit()

    def _on_layer_removed(self, event: object) -> None:
        layers, places = self._session.viewer.layers, self.geometry
        gone = any(layer not in layers for layer in self.layers)
        if gone or (places is not None and places.slide.layer not in layers):
            self.remove()


def shared_limits(*values: NDArray[np.floating]) -> tuple[float, float]:
    """One scale for maps that are to be compared."""
    return percentile_limits([np.asarray(v, np.float32) for v in values])


def symmetric_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """As far below 0 as above."""
    finite = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(finite, 98)), 1e-3) if len(finite) else 1.0
    return -reach, reach


def _make_layer(geometry: MapGeometry, name: str, opacity: float) -> Layer:
    mpp, grid = geometry.slide.mpp, geometry.grid
    common = {
        "name": name,
        "units": MICROMETER_UNITS,
        "axis_labels": AXIS_LABELS,
        "opacity": opacity,
        "metadata": {"napari-dkan": "compared"},
    }
    if grid is not None:
        pitch = grid.pitch * mpp
        return Image(
            np.full(grid.shape, np.nan, np.float32),
            scale=(pitch, pitch),
            translate=swap_xy((grid.first_cell + 0.5) * pitch),
            blending="translucent",
            interpolation2d="nearest",
            **common,
        )
    assert geometry.spots is not None
    return Points(
        swap_xy(geometry.spots.xy),
        size=(geometry.spots.diameter_um or 100.0) / mpp,
        scale=(mpp, mpp),
        border_color="white",
        border_width=0.04,
        features={VALUE_COLUMN: np.zeros(len(geometry.spots), np.float32)},
        **(common | {"opacity": 1.0}),
    )


def _draw_values(layer: Layer, geometry: MapGeometry, value_map: ValueMap) -> None:
    layer.name = value_map.name
    if isinstance(layer, Image) and geometry.grid is not None:
        layer.data = geometry.grid.to_raster(value_map.values)
        layer.contrast_limits_range = value_map.limits
        layer.contrast_limits = value_map.limits
        layer.colormap = value_map.colormap
        _show_color_bar(layer.colorbar)
    elif isinstance(layer, Points):
        layer.features = {VALUE_COLUMN: np.asarray(value_map.values, np.float32)}
        layer.face_color = VALUE_COLUMN
        layer.face_colormap = value_map.colormap
        layer.face_contrast_limits = value_map.limits
        _show_color_bar(layer.face_colorbar)


def _show_color_bar(bar: ColorBarOverlay) -> None:
    """Small: a cell has little room."""
    bar.size, bar.font_size, bar.visible = (16, 100), 8, True
