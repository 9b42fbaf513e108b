"""The ruler: a line of known length on the slide, which gives the pixel size."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Layer, Shapes
from psygnal import Signal

from ...errors import SlideError
from ...slide.pixel_size import RULER_ORIGIN
from ..session.pixel_size_sources import format_pixel_size
from ..session.slide_layer import (
    AXIS_LABELS,
    METADATA_PREFIX,
    MICROMETER_UNITS,
    PIXEL_UNITS,
    ViewerSlide,
)
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections

LINE_COLOR = "#00a83a"  # differs from eosin, haematoxylin and glass
LINE_WIDTH_PX = 3  # screen pixels
MIN_LENGTH_PX = 20  # level-0 px; one pixel of it is 5 %


class Ruler:
    """Measures the pixel size with a line, in a layer that is removed afterwards."""

    changed = Signal()  # started, drawn, ended

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.layer: Shapes | None = None
        self._slide: ViewerSlide | None = None
        self._previous_active_layer: Layer | None = None
        self._edit_debouncer = Debouncer(0, self._switch_to_edit_mode)
        connections.connect(self._on_slide_changed, session.slide_changed)
        session.layers.watch_removal(lambda: (self.layer,), self._reset, connections)

    @property
    def busy(self) -> bool:
        """Whether the ruler is in use."""
        return self.layer is not None

    @property
    def length_px(self) -> float:
        """Length of the line in level-0 px; 0 before it is drawn."""
        if self.layer is None or not self.layer.nshapes:
            return 0.0
        line = np.asarray(self.layer.data[-1])
        return float(np.hypot(*(line[-1] - line[0])))

    def start(self) -> None:
        """Start to draw a line; without a slide only a message is shown."""
        session, slide = self._session, self._session.slide
        if slide is None:
            session.message.show("Open a slide first: drag one onto the window.", warning=True)
            return
        self.cancel()
        viewer = session.viewer
        zoom = max(viewer.scene.camera.zoom * slide.mpp, 1e-9)
        has_pixel_size = slide.pixel_size is not None
        layer = Shapes(
            ndim=2,
            name="ruler",
            scale=(slide.mpp, slide.mpp),
            units=MICROMETER_UNITS if has_pixel_size else PIXEL_UNITS,
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
        """Remove the line; the pixel size does not change."""
        self._session.layers.remove(self.layer)
        self._reset()

    def close(self) -> None:
        """Remove the line."""
        self._edit_debouncer.stop()
        self.cancel()

    def set_length(self, length_um: float) -> None:
        """Set the pixel size of the slide from the true length of the line.

        Raises
        ------
        SlideError
            If the line is missing or too short, or the pixel size is not plausible.
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
        """Format the length of the line, in px without a pixel size."""
        length, slide = self.length_px, self._slide
        if slide is None or not length:
            return ""
        if slide.pixel_size is None:
            return f"{length:,.0f} px"
        um = length * slide.mpp
        return f"{um / 1000:.4g} mm" if um >= 1000 else f"{um:.4g} um"

    def _on_data_changed(self, event: Any) -> None:
        """After the first line, its ends can be moved."""
        if str(getattr(event.action, "value", "")) == "added":
            self._edit_debouncer.start()  # after napari has finished drawing
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
        was_active, self.layer, self._slide = self.layer is not None, None, None
        before, self._previous_active_layer = self._previous_active_layer, None
        layers = self._session.viewer.layers
        if was_active:
            if before is not None and before in layers:
                layers.selection.active = before
            self.changed.emit()
