"""Scale bar and overview of the slide: where on the slide the view is, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QMainWindow, QWidget

from ...slide import Slide
from ..session.slide_layer import ViewerSlide, slide_to_world
from ..session.viewer_session import ViewerSession
from ..session.viewer_settings import (
    connect_canvas_preference,
    get_canvas_preference,
    set_canvas_preference,
)
from ..widgets.overview_inset import OverviewInset
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

PICTURE_PX = 320  # longest side of the picture that is read
CANVAS_FRACTION, MIN_SIDE_PX, MAX_SIDE_PX = 0.2, 72, 200  # longest side on the screen
MARGIN_PX = 10
NARROW_CANVAS_PX = 460  # below, the legend needs the upper corners
MIN_CANVAS_PX = 220  # below, captions need all of it


class ScaleBar:
    """Shows napari's scale bar with the first layer, and remembers when it is switched off.

    An empty canvas has no scale, and the bar loads napari's table of units, a quarter of a second.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._layers = session.viewer.layers
        self._overlay = session.viewer.canvas.overlays.scale_bar
        self._follow_preference()
        connections.connect(self._on_visible_changed, self._overlay.events.visible)
        connections.connect(self._on_layer_inserted, self._layers.events.inserted)
        connect_canvas_preference("scale_bar", self._follow_preference, connections)

    def _on_layer_inserted(self, event: object = None) -> None:
        if len(self._layers) == 1:
            self._follow_preference()

    def _follow_preference(self) -> None:
        if self._layers:
            self._overlay.visible = get_canvas_preference("scale_bar")

    def _on_visible_changed(self, event: object = None) -> None:
        set_canvas_preference("scale_bar", self._overlay.visible)


class SlideOverview:
    """The current slide in a left corner of the canvas, with a frame around the view.

    A click in it moves the view. Closed, it stays a button, also in the next session. It makes
    room for maps side by side.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.inset: OverviewInset | None = None  # once the panel is in a window
        self._slide: Slide | None = None  # of the picture
        self._runner = JobRunner("overview")
        viewer = session.viewer
        camera, canvas = viewer.scene.camera.events, viewer.canvas
        connections.connect(self._on_slide_changed, session.slides_changed, session.slide_changed)
        connections.connect(self._update_frame, camera.center, camera.zoom, camera.angles)
        connections.connect(self._on_resized, canvas.events.size)
        connections.connect(self._on_slide_changed, canvas.grid.events.enabled)
        connect_canvas_preference("overview", self._follow_preference, connections)

    def attach(self, window: QWidget) -> None:
        """Put the overview on the canvas of a window, once."""
        centre = window.centralWidget() if isinstance(window, QMainWindow) else None
        if self.inset is not None or centre is None:
            return
        self.inset = OverviewInset(centre)
        self._follow_preference()
        self.inset.toggled.connect(self._on_toggled)
        self.inset.position_picked.connect(self._move_view)
        self._on_slide_changed()

    def _follow_preference(self) -> None:
        if self.inset is not None:
            self.inset.set_expanded(get_canvas_preference("overview"))
            self._place()

    def _on_toggled(self, shown: bool) -> None:
        set_canvas_preference("overview", shown)
        self._place()

    def close(self) -> None:
        """Remove the overview and wait for its thread."""
        self._runner.close()
        inset, self.inset, self._slide = self.inset, None, None
        if inset is not None:
            with suppress(RuntimeError):  # deleted with its window
                inset.hide()
                inset.deleteLater()

    def _current(self) -> ViewerSlide | None:
        canvas = self._session.viewer.canvas
        has_room = not canvas.grid.enabled and canvas.size[1] >= MIN_CANVAS_PX
        return self._session.slide if has_room else None

    def _on_slide_changed(self, event: object = None) -> None:
        """Read the picture of another slide."""
        current = self._current()
        slide = None if current is None else current.slide
        if self.inset is None or slide is self._slide:
            self._update_frame()
            return
        self._slide = slide
        self._runner.cancel()
        self.inset.set_picture(None, self._max_side())
        if slide is not None:
            self._runner.start(lambda: _read_picture(slide), self._on_picture, self._on_job_end)

    def _on_picture(self, picture: NDArray[np.uint8]) -> None:
        if self.inset is not None:
            self.inset.set_picture(picture, self._max_side())
            self.inset.raise_()
            self._place()
            self._update_frame()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        """A slide that cannot be read is reported where it is predicted."""

    def _max_side(self) -> int:
        side = CANVAS_FRACTION * self._session.viewer.canvas.size[1]
        return round(float(np.clip(side, MIN_SIDE_PX, MAX_SIDE_PX)))

    def _on_resized(self, event: object = None) -> None:
        if self.inset is not None:
            self.inset.set_max_side(self._max_side())
            self._place()
        self._on_slide_changed()

    def _place(self) -> None:
        assert self.inset is not None
        height, width = self._session.viewer.canvas.size
        is_narrow = width < NARROW_CANVAS_PX
        self.inset.move(
            MARGIN_PX, height - self.inset.height() - MARGIN_PX if is_narrow else MARGIN_PX
        )

    def _update_frame(self, event: object = None) -> None:
        current, inset = self._current(), self.inset
        if inset is None or current is None or not inset.has_picture:
            return
        viewer = self._session.viewer
        centre = np.asarray(viewer.scene.camera.center[-2:], float)
        half = np.array(viewer.canvas.size, float) / (2 * max(viewer.scene.camera.zoom, 1e-9))
        corners = centre + half * [(-1, -1), (-1, 1), (1, 1), (1, -1)]
        xy = [current.layer.world_to_data(corner)[::-1] for corner in corners]
        inset.set_frame((np.array(xy) + 0.5) / (current.slide.width, current.slide.height))

    def _move_view(self, x: float, y: float) -> None:
        current = self._current()
        if current is not None:
            place = np.array([[x * current.slide.width, y * current.slide.height]])
            ((world_x, world_y),) = slide_to_world(place, current)
            self._session.viewer.scene.camera.center = (0, float(world_y), float(world_x))


def _read_picture(slide: Slide) -> Iterator[NDArray[np.uint8]]:
    """Read the whole slide at a low resolution."""
    longest = max(slide.width, slide.height)
    square = slide.read_patch(slide.width / 2, slide.height / 2, longest, PICTURE_PX)
    height, width = (max(1, round(PICTURE_PX * n / longest)) for n in (slide.height, slide.width))
    top, left = (PICTURE_PX - height) // 2, (PICTURE_PX - width) // 2
    yield square[top : top + height, left : left + width]
