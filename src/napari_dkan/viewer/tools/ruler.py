"""The ruler: a line of known length on the slide, which gives the pixel size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Shapes
from psygnal import Signal
from qtpy.QtCore import QTimer

from ...errors import SlideError
from ..session.pixel_size_sources import RULER_ORIGIN, format_pixel_size
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS, PIXEL_UNITS
from ..widgets.signal_connections import SignalConnections

if TYPE_CHECKING:
    from ..session.slide_layer import ViewerSlide
    from ..session.viewer_session import ViewerSession


LINE_COLOR = "#00a83a"  # stands out from eosin, haematoxylin and glass
LINE_WIDTH_PX = 3  # screen pixels
MIN_LENGTH_PX = 20  # level-0 px: of a shorter line, one pixel is 5 %


def is_ruler(layer: Layer) -> bool:
    """Whether a layer is the line of a ruler, which is no region."""
    return bool(layer.metadata.get(METADATA_PREFIX) == "ruler")


class Ruler:
    """A temporary layer with one line; it goes when the line was measured, or given up."""

    changed = Signal()  # begun, drawn on, ended

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.layer: Shapes | None = None
        self._slide: ViewerSlide | None = None
        self._previous_active_layer: Layer | None = None  # what was selected
        self._edit_timer = QTimer()
        self._edit_timer.setSingleShot(True)
        self._edit_timer.timeout.connect(self._switch_to_edit_mode)
        connections.connect(self._on_slide_changed, session.slide_changed)
        session.layers.watch_removal(lambda: (self.layer,), self._reset, connections)

    @property
    def busy(self) -> bool:
        return self.layer is not None

    @property
    def length_px(self) -> float:
        """Level-0 px from one end of the line to the other; 0 before it is drawn."""
        if self.layer is None or not self.layer.nshapes:
            return 0.0
        line = np.asarray(self.layer.data[-1])
        return float(np.hypot(*(line[-1] - line[0])))

    def start(self) -> None:
        """Begin to draw; does nothing while there is no slide."""
        session, slide = self._session, self._session.slide
        if slide is None:
            session.message.show("Open a slide first: drag one onto the window.", warning=True)
            return
        self.cancel()
        viewer = session.viewer
        zoom = max(viewer.scene.camera.zoom * slide.mpp, 1e-9)
        known = slide.pixel_size is not None
        layer = Shapes(
            ndim=2,
            name=f"ruler, {slide.layer.name}",
            scale=(slide.mpp, slide.mpp),
            units=MICROMETER_UNITS if known else PIXEL_UNITS,
            axis_labels=AXIS_LABELS,
            edge_color=LINE_COLOR,
            edge_width=LINE_WIDTH_PX / zoom,
            face_color="transparent",
            opacity=1.0,
            features={"length": np.empty(0, str)},
            text={
                "string": "{length}",
                "color": LINE_COLOR,
                "size": 16,
                "anchor": "upper_left",
                "translation": [-24 / zoom, 0],
            },
            metadata={METADATA_PREFIX: "ruler"},
        )
        self._previous_active_layer = viewer.layers.selection.active
        self.layer, self._slide = layer, slide
        session.layers.attach(slide, layer)
        viewer.add_layer(layer)
        viewer.layers.selection.active = layer
        layer.mode = "add_line"
        layer.bind_key("Escape", lambda layer: self.cancel(), overwrite=True)
        layer.events.data.connect(self._on_data_changed)
        layer.events.set_data.connect(self._update_length_text)
        self.changed.emit()

    def cancel(self) -> None:
        """Take the line away; nothing else changes."""
        self._session.layers.remove(self.layer)
        self._reset()

    def close(self) -> None:
        """The panel goes, and the line with it."""
        self._edit_timer.stop()
        self.cancel()

    def set_length(self, length_um: float) -> None:
        """The line is that long: that is the slide's pixel size, from now on.

        Raises SlideError where there is no line to speak of, or the size is absurd.
        """
        length, slide = self.length_px, self._slide
        if slide is None or length < MIN_LENGTH_PX:
            raise SlideError("Draw a line first, as long as possible: its length tells the scale.")
        if length_um <= 0:
            raise SlideError("Enter how long the line is, in um or mm.")
        self._session.viewer_slides.set_mpp(length_um / length, RULER_ORIGIN)
        self.cancel()
        if slide.pixel_size is not None:
            self._session.message.show(
                f"{format_pixel_size(slide.pixel_size, None)}; remembered for this slide."
            )

    def format_length(self) -> str:
        """The line's length for people."""
        length, slide = self.length_px, self._slide
        if slide is None or not length:
            return ""
        if slide.pixel_size is None:
            return f"{length:,.0f} px"
        um = length * slide.mpp
        return f"{um / 1000:.4g} mm" if um >= 1000 else f"{um:.4g} um"

    def _on_data_changed(self, event: Any) -> None:
        """One line is enough; from now on its ends can be moved."""
        if str(getattr(event.action, "value", "")) == "added":
            self._edit_timer.start(0)  # not within napari's own drawing
        self.changed.emit()

    def _switch_to_edit_mode(self) -> None:
        if self.layer is not None and self.layer.nshapes:
            self.layer.mode = "direct"
            self._update_length_text()

    def _update_length_text(self, event: object = None) -> None:
        layer, text = self.layer, self.format_length()
        if layer is None or not layer.nshapes:
            return
        if len(layer.features) != layer.nshapes or layer.features["length"].iloc[-1] != text:
            layer.features = {"length": [*[""] * (layer.nshapes - 1), text]}
            self.changed.emit()

    def _on_slide_changed(self) -> None:
        if self._slide is not None and self._slide is not self._session.slide:
            self.cancel()
        self.changed.emit()

    def _reset(self) -> None:
        had, self.layer, self._slide = self.layer is not None, None, None
        before, self._previous_active_layer = self._previous_active_layer, None
        layers = self._session.viewer.layers
        if had:
            if before is not None and before in layers:
                layers.selection.active = before
            self.changed.emit()
