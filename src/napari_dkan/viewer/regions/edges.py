"""Outlines of regions, as thick on the screen at every zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Shapes

from ..later import Debouncer
from .shapes import REGIONS_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

EDGE_WIDTH_PX = 2.0
ZOOM_DEBOUNCE_MS = 150  # the view rests so long before outlines are drawn anew
MAX_RESCALED_VERTICES = 20_000  # more take too long to be drawn at every zoom; they stay as they are
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
