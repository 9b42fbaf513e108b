"""The map of a gene set's predicted score, in place of the maps of genes."""

from __future__ import annotations

import numpy as np
from napari.layers import Layer, Points

from ...layers.canvas_legend import LEGEND_PREFIX, CanvasLegend
from ...layers.contrast_limits import percentile_limits
from ...layers.tile_map_layer import SMOOTH_NOTE, TileMapLayer
from ...layers.value_layers import (
    VALUE_COLUMN,
    color_grid,
    color_spots,
    make_grid_layer,
    make_spots_layer,
    shrink_color_bar,
)
from ...session.slide_layer import METADATA_PREFIX, ViewerSlide
from ...session.viewer_session import ViewerSession
from ...widgets.signal_connections import SignalConnections
from ..quality.data.loaded_section import SECTION_KEY
from .comparison_job import ComparedValues


class SetScoreMap:
    """One layer for the set that was chosen last; predicted and measured genes are hidden under it.

    Otherwise two quantities would be drawn on one another.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._layer: Layer | None = None
        self._shown: tuple[ComparedValues, str, ViewerSlide] | None = None
        self._hidden: list[Layer] = []
        self._legend = CanvasLegend(session, LEGEND_PREFIX + "set_legend", "top_right", 10)
        connections.connect(self._on_layer_removed, session.viewer.layers.events.removed)
        connections.connect(self._on_settings_changed, session.settings_changed)

    def show(self, compared: ComparedValues, title: str, slide: ViewerSlide) -> None:
        """Draw the score of a set at the tiles of a comparison, which stay until `remove`."""
        tiles, settings = compared.tiles, self._session.settings
        column = compared.comparison.symbols.index(title)
        values = np.asarray(compared.values[:, column], np.float32)
        if self._layer is None:
            self._layer = self._add_layer(compared, title, slide)
        layer, self._shown = self._layer, (compared, title, slide)
        layer.name = f"{title} predicted score"
        limits = percentile_limits([values])
        note = ""
        if isinstance(layer, TileMapLayer) and tiles.grid is not None:
            layer.set_tiles(tiles.grid.to_raster(values), settings.smooth_maps)
            color_grid(layer, limits, settings.colormap)
            bar, note = layer.colorbar, SMOOTH_NOTE if layer.factor > 1 else ""
        else:
            assert isinstance(layer, Points)
            color_spots(layer, values, limits, settings.colormap)
            bar = layer.face_colorbar
        shrink_color_bar(bar)
        bar.visible = True
        lines = title, "predicted score of the set", note
        self._legend.show("\n".join(line for line in lines if line), alone=True)

    def _add_layer(self, compared: ComparedValues, title: str, slide: ViewerSlide) -> Layer:
        session, tiles = self._session, compared.tiles
        metadata = {METADATA_PREFIX: "gene set"}
        if tiles.grid is not None:
            opacity = session.settings.opacity
            layer: Layer = make_grid_layer(
                tiles.grid, slide.mpp, title, opacity=opacity, metadata=metadata
            )
        else:
            layer = make_spots_layer(
                tiles.xy,
                slide.mpp,
                title,
                tiles.pitch * slide.mpp,
                features={VALUE_COLUMN: np.zeros(len(tiles.xy), np.float32)},
                metadata=metadata,
            )
        maps = [o.layer for o in session.overlays]
        measured = [x for x in session.viewer.layers if SECTION_KEY in x.metadata]
        session.layers.insert(layer, slide, above=[slide.layer, *maps])
        self._hidden = [x for x in (*maps, *measured) if x.visible]
        for hidden in self._hidden:
            hidden.visible = False
        return layer

    def _on_settings_changed(self) -> None:
        if self._layer is not None and self._shown is not None:
            self.show(*self._shown)

    def remove(self) -> None:
        """Remove the layer and show the maps of genes again."""
        layer, self._layer = self._layer, None
        if layer is not None:
            self._session.layers.remove(layer)
            self._show_genes()

    def _show_genes(self) -> None:
        self._legend.hide()
        hidden, self._hidden = self._hidden, []
        for layer in hidden:
            layer.visible = True

    def _on_layer_removed(self, event: object = None) -> None:
        if self._layer is not None and self._layer not in self._session.viewer.layers:
            self._layer = None
            self._show_genes()
