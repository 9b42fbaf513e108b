"""Layers of several value maps over the same tiles or spots of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from napari.layers import Layer, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from psygnal import Signal

from .....spatial.spots import Spots
from .....spatial.tile_grid import TileGrid
from ....layers.canvas_legend import LEGEND_PREFIX, CanvasLegend
from ....layers.contrast_limits import percentile_limits
from ....layers.map_grid import MapGrid
from ....layers.tile_map_layer import SMOOTH_NOTE, TileMapLayer
from ....layers.value_layers import (
    VALUE_COLUMN,
    color_grid,
    color_spots,
    make_grid_layer,
    make_spots_layer,
    shrink_color_bar,
)
from ....session.slide_layer import METADATA_PREFIX, ViewerSlide
from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import MapLayout, QualityModel
from .section_maps import BORDER_WIDTH

VALUE_MAPS_LEGEND = LEGEND_PREFIX + "maps_legend"


@dataclass(frozen=True, eq=False)
class MapGeometry:
    """Positions of the values: spots, or the tiles of a grid.

    Both are None where the layers are made elsewhere.
    """

    slide: ViewerSlide
    spots: Spots | None = None
    grid: TileGrid | None = None


@dataclass(frozen=True, eq=False)
class ValueMap:
    """Layer name, values (N,), contrast limits and colours of one map."""

    name: str
    values: NDArray[np.floating]
    limits: tuple[float, float]
    colormap: str | Colormap


class ValueMapLayers:
    """Maps of one result, side by side or stacked; those of another result replace them."""

    changed = Signal()

    def __init__(self, model: QualityModel, connections: SignalConnections) -> None:
        self._model, self._session = model, model.session
        self._grid = MapGrid(self._session)
        self.geometry: MapGeometry | None = None
        self.layers: list[Layer] = []
        self._caption = ""
        self._legend = CanvasLegend(self._session, VALUE_MAPS_LEGEND, "top_left", 9)
        session = self._session
        connections.connect(self._on_layer_removed, session.viewer.layers.events.removed)
        connections.connect(self._apply_settings, session.settings_changed)
        connections.connect(self._update_legend, session.gene_changed)

    @property
    def is_side_by_side(self) -> bool:
        return self._grid.is_active

    def show(self, geometry: MapGeometry, maps: list[ValueMap], caption: str) -> None:
        """Draw the maps; existing layers are used if they have the same positions."""
        is_new = geometry is not self.geometry or len(self.layers) != len(maps)
        if is_new:
            opacity = self._session.settings.opacity
            layers = [_make_layer(geometry, m.name, opacity) for m in maps]
            self.set_layers(geometry, layers, caption, apply_layout=False)
        self._caption = caption
        for layer, value_map in zip(self.layers, maps, strict=True):
            _draw_values(layer, geometry, value_map, self._session.settings.smooth_maps)
        if is_new:
            self.set_side_by_side(True)
        self._update_legend()

    def set_layers(
        self, geometry: MapGeometry, layers: list[Layer], caption: str, apply_layout: bool = True
    ) -> None:
        """Replace the layers by these, each in a cell of its own.

        Parameters
        ----------
        geometry, layers
        caption
            What the layers show.
        apply_layout
            Whether to show them side by side at once.
        """
        self.remove()
        self._caption = caption
        self.layers, self.geometry = layers, geometry
        for layer in layers:
            self._session.layers.insert(layer, geometry.slide)
        if apply_layout:
            self.set_side_by_side(True)

    def set_side_by_side(self, side_by_side: bool) -> None:
        """Show the maps side by side, or stacked on the slide."""
        if side_by_side and self.geometry is not None:
            self._model.set_layout(MapLayout.STACKED)  # the canvas has one grid
            self._grid.enter(self.geometry.slide, self.layers)
        else:
            self._grid.leave()
        self._update_legend()
        self.changed.emit()

    def hide(self) -> None:
        """Make room for other maps on the canvas; side by side they are shown again."""
        for layer in self.layers:
            layer.visible = False
        self.set_side_by_side(False)

    def _apply_settings(self) -> None:
        """Draw tiles as smoothly as those of other maps."""
        for layer in self.layers:
            if isinstance(layer, TileMapLayer):
                layer.set_smooth(self._session.settings.smooth_maps)
        self._update_legend()

    def _update_legend(self, event: object = None) -> None:
        """Replace the other legends while these maps fill the canvas."""
        if self._grid.is_active:
            smooth = any(isinstance(x, TileMapLayer) and x.factor > 1 for x in self.layers)
            note = f"\n{SMOOTH_NOTE}" if smooth else ""
            self._legend.show(self._caption + note, alone=True)
        else:
            self._legend.hide()

    def remove(self) -> None:
        """Remove the maps and restore the canvas."""
        removed, self.layers, self.geometry = self.layers, [], None
        if not removed:
            return
        self._grid.leave()
        self._update_legend()
        self._session.layers.remove(*removed)
        self.changed.emit()

    def _on_layer_removed(self, event: object) -> None:
        """Remove all maps when the user deletes one of them or their slide."""
        layers, geometry = self._session.viewer.layers, self.geometry
        is_incomplete = any(layer not in layers for layer in self.layers)
        if is_incomplete or (geometry is not None and geometry.slide.layer not in layers):
            self.remove()


def shared_limits(*values: NDArray[np.floating]) -> tuple[float, float]:
    """Contrast limits of maps that are to be compared."""
    return percentile_limits([np.asarray(v, np.float32) for v in values])


def _make_layer(geometry: MapGeometry, name: str, opacity: float) -> Layer:
    mpp, metadata = geometry.slide.mpp, {METADATA_PREFIX: "compared"}
    if geometry.grid is not None:
        return make_grid_layer(geometry.grid, mpp, name, opacity=opacity, metadata=metadata)
    assert geometry.spots is not None
    return make_spots_layer(
        geometry.spots.xy,
        mpp,
        name,
        geometry.spots.diameter_um,
        border_color="white",
        border_width=BORDER_WIDTH,
        features={VALUE_COLUMN: np.zeros(len(geometry.spots), np.float32)},
        metadata=metadata,
    )


def _draw_values(layer: Layer, geometry: MapGeometry, value_map: ValueMap, smooth: bool) -> None:
    layer.name = value_map.name
    if isinstance(layer, TileMapLayer) and geometry.grid is not None:
        layer.set_tiles(geometry.grid.to_raster(value_map.values), smooth)
        layer.contrast_limits_range = value_map.limits
        color_grid(layer, value_map.limits, value_map.colormap)
        color_bar = layer.colorbar
    elif isinstance(layer, Points):
        color_spots(layer, value_map.values, value_map.limits, value_map.colormap)
        color_bar = layer.face_colorbar
    else:
        return
    shrink_color_bar(color_bar)
    color_bar.visible = True
