"""The visible part of the canvas, readable in worker threads, as an order of prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..session.slide_layer import ViewerSlide, slide_to_world
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections


@dataclass(frozen=True)
class ViewportExtent:
    """Centre (x, y) and half size of the visible area, in world units."""

    centre: tuple[float, float]
    half_size: tuple[float, float]

    def order_by_visibility(self, world_xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Order rows of (N, 2): visible positions first, then by distance from the centre."""
        offset = np.abs(world_xy - np.array(self.centre))
        hidden = (offset > np.array(self.half_size)).any(axis=1)
        return np.lexsort((np.hypot(*offset.T), hidden))


class Viewport:
    """Follows the camera in the GUI thread; `extent` may be read in any thread."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.extent = self._read_camera()
        camera = session.viewer.scene.camera
        connections.connect(self._on_camera_moved, camera.events.center, camera.events.zoom)

    def make_order(
        self, slide: ViewerSlide
    ) -> Callable[[NDArray[np.float64]], NDArray[np.int64] | None]:
        """Return an ordering function for a job on the slide.

        It maps positions (N, 2) in level-0 px to their order in the current view, or to None if
        the view has not moved since the last call.
        """
        self._on_camera_moved()
        last = None

        def order_by_view(xy: NDArray[np.float64]) -> NDArray[np.int64] | None:
            nonlocal last
            extent = self.extent
            if extent == last:
                return None
            last = extent
            return extent.order_by_visibility(slide_to_world(xy, slide))

        return order_by_view

    def _on_camera_moved(self, event: object = None) -> None:
        self.extent = self._read_camera()

    def _read_camera(self) -> ViewportExtent:
        viewer = self._session.viewer
        y, x = viewer.scene.camera.center[-2:]
        height, width = viewer.canvas.size
        zoom = 2 * max(viewer.scene.camera.zoom, 1e-9)
        return ViewportExtent((float(x), float(y)), (width / zoom, height / zoom))
