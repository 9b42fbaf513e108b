"""When drawing ends: a shape is finished, another target is chosen, or Escape is pressed."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels, Layer, Points, Shapes
from psygnal import Signal
from qtpy.QtCore import QTimer

from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections

LOOK_MODE = "pan_zoom"
END_KEY = "Escape"


def end_drawing(session: ViewerSession) -> None:
    """Set all layers that can be drawn in to pan and zoom.

    A begun shape is finished, or removed if it has too few corners.
    """
    for layer in session.viewer.layers:
        if isinstance(layer, Shapes | Labels | Points) and str(layer.mode) != LOOK_MODE:
            if isinstance(layer, Shapes) and layer._is_creating:
                layer._finish_drawing()  # a change of the mode would keep a single corner
            layer.mode = LOOK_MODE


class DrawingTool:
    """Returns to looking after a shape of the followed layers is finished, and on Escape.

    Otherwise the next click on the slide would begin another shape instead of predicting.
    """

    finished = Signal(object)  # the Shapes layer in which a shape was drawn

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session, self._connections = session, connections
        session.viewer.bind_key(END_KEY, self._on_key, overwrite=True)
        connections.on_disconnect(lambda: session.viewer.bind_key(END_KEY, None))

    def follow(self, layer: Layer) -> None:
        """End drawing in a layer when a shape is finished, and on Escape."""
        if isinstance(layer, Shapes):
            # The layer's own binding of Escape finishes the shape and keeps the tool.
            layer.bind_key(END_KEY, self._on_key, overwrite=True)
            self._connections.on_disconnect(lambda: layer.bind_key(END_KEY, None))

            def on_data(event: Any) -> None:
                is_drawn = str(event.action) == "added" and str(layer.mode).startswith("add_")
                if is_drawn:  # napari is still finishing the shape
                    QTimer.singleShot(0, lambda: self._on_shape_finished(layer))

            self._connections.connect(on_data, layer.events.data)

    def _on_shape_finished(self, layer: Shapes) -> None:
        if layer in self._session.viewer.layers and not layer._is_creating:
            layer.mode = LOOK_MODE
            self.finished.emit(layer)

    def _on_key(self, source: Any) -> None:
        end_drawing(self._session)
