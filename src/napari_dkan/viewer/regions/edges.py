"""Outlines of regions, as thick on the screen at every zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Shapes

from ..later import Later
from .shapes import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

SCREEN_PX = 2.0
STILL_MS = 150  # the view rests so long before outlines are drawn anew
MOST_VERTICES = 20_000  # more take too long to be drawn at every zoom; they stay as they are
NEAR = 1.15  # a change below this cannot be seen


class Edges:
    """Follows the zoom of a viewer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._later = Later(STILL_MS, self._follow)
        viewer.scene.camera.events.zoom.connect(self._zoomed)

    def fit(self, layer: Shapes) -> None:
        """Make a layer's outlines as wide as the zoom of now asks for."""
        wanted = SCREEN_PX / self._viewer.scene.camera.zoom / abs(float(layer.scale[-1]))
        if not len(layer.data) or not wanted > 0:
            return
        ratio = wanted / max(float(layer.edge_width[0]), 1e-9)
        if not 1 / NEAR < ratio < NEAR:
            layer.edge_width = wanted

    def _zoomed(self, event: object = None) -> None:
        self._later.start()

    def _follow(self) -> None:
        for layer in self._viewer.layers:
            ours = isinstance(layer, Shapes) and KEY in layer.metadata
            if ours and sum(map(len, layer.data)) <= MOST_VERTICES:
                self.fit(layer)
