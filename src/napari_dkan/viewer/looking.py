"""What the camera shows, as worker threads may read it: an order for what is predicted next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .links import Links
from .on_slide import to_canvas
from .session import OpenSlide, Session


@dataclass(frozen=True)
class View:
    """Centre (x, y) and half the size of what the canvas shows, in world units."""

    centre: tuple[float, float]
    half: tuple[float, float]

    def order(self, world_xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of (N, 2): those on the canvas first, then by distance from its middle."""
        offset = np.abs(world_xy - np.array(self.centre))
        hidden = (offset > np.array(self.half)).any(axis=1)
        return np.lexsort((np.hypot(*offset.T), hidden))


class Looking:
    """Follows the camera in the GUI thread; `view` may be read in any."""

    def __init__(self, session: Session, links: Links) -> None:
        self._session = session
        self.view = self._seen()
        camera = session.viewer.scene.camera
        links.join(self._moved, camera.events.center, camera.events.zoom)

    def order(self, slide: OpenSlide) -> Callable[[NDArray[np.float64]], NDArray[np.int64] | None]:
        """For a job on the slide: places (N, 2) in level-0 px -> their order by the view of now.

        None as long as the view has not moved since it was last asked.
        """
        self._moved()
        asked = None

        def by_view(xy: NDArray[np.float64]) -> NDArray[np.int64] | None:
            nonlocal asked
            view = self.view
            if view == asked:
                return None
            asked = view
            return view.order(to_canvas(xy, slide))

        return by_view

    def _moved(self, event: object = None) -> None:
        self.view = self._seen()

    def _seen(self) -> View:
        viewer = self._session.viewer
        y, x = viewer.scene.camera.center[-2:]
        height, width = viewer.canvas.size
        zoom = 2 * max(viewer.scene.camera.zoom, 1e-9)
        return View((float(x), float(y)), (width / zoom, height / zoom))
