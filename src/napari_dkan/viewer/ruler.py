"""The ruler: a line on the slide whose length a person knows tells how large a pixel is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Shapes
from psygnal import Signal
from qtpy.QtCore import QTimer

from ..errors import SlideError
from .links import Links
from .pixel_sizes import RULER, told
from .slides import AXES, OURS, PIXELS, UNITS

if TYPE_CHECKING:
    from .open_slides import OpenSlide
    from .session import Session

COLOUR = "#00a83a"  # stands out from eosin, haematoxylin and glass
WIDTH = 3  # screen pixels
SHORTEST = 20  # level-0 px: of a shorter line, one pixel is 5 %


def is_ruler(layer: Layer) -> bool:
    """Whether a layer is the line of a ruler, which is no region."""
    return bool(layer.metadata.get(OURS) == "ruler")


class Ruler:
    """A temporary layer with one line; it goes when the line was measured, or given up."""

    changed = Signal()  # begun, drawn on, ended

    def __init__(self, session: Session, links: Links) -> None:
        self._session = session
        self.layer: Shapes | None = None
        self._slide: OpenSlide | None = None
        self._before: Layer | None = None  # what was selected
        self._settled = QTimer()
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self._adjust)
        links.join(self._slide_changed, session.slide_changed)
        links.join(self._layer_gone, session.viewer.layers.events.removed)

    @property
    def busy(self) -> bool:
        return self.layer is not None

    @property
    def length(self) -> float:
        """Level-0 px from one end of the line to the other; 0 before it is drawn."""
        if self.layer is None or not self.layer.nshapes:
            return 0.0
        line = np.asarray(self.layer.data[-1])
        return float(np.hypot(*(line[-1] - line[0])))

    def start(self) -> None:
        """Begin to draw; does nothing while there is no slide."""
        session, slide = self._session, self._session.slide
        if slide is None:
            session.say("Open a slide first: drag one onto the window.", alarming=True)
            return
        self.cancel()
        viewer = session.viewer
        zoom = max(viewer.scene.camera.zoom * slide.mpp, 1e-9)
        known = slide.pixel_size is not None
        layer = Shapes(
            ndim=2,
            name=f"ruler, {slide.layer.name}",
            scale=(slide.mpp, slide.mpp),
            units=UNITS if known else PIXELS,
            axis_labels=AXES,
            edge_color=COLOUR,
            edge_width=WIDTH / zoom,
            face_color="transparent",
            opacity=1.0,
            features={"length": np.empty(0, str)},
            text={
                "string": "{length}",
                "color": COLOUR,
                "size": 16,
                "anchor": "upper_left",
                "translation": [-24 / zoom, 0],
            },
            metadata={OURS: "ruler"},
        )
        self._before = viewer.layers.selection.active
        self.layer, self._slide = layer, slide
        session.put_on(slide, layer)
        viewer.add_layer(layer)
        viewer.layers.selection.active = layer
        layer.mode = "add_line"
        layer.bind_key("Escape", lambda layer: self.cancel(), overwrite=True)
        layer.events.data.connect(self._drawn)
        layer.events.set_data.connect(self._moved)
        self.changed.emit()

    def cancel(self) -> None:
        """Take the line away; nothing else changes."""
        layer = self.layer
        if layer is not None and layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(layer)  # which comes back below
        self._end()

    def close(self) -> None:
        """The panel goes, and the line with it."""
        self._settled.stop()
        self.cancel()

    def take(self, um: float) -> None:
        """The line is that long: that is the slide's pixel size, from now on.

        Raises SlideError where there is no line to speak of, or the size is absurd.
        """
        length, slide = self.length, self._slide
        if slide is None or length < SHORTEST:
            raise SlideError("Draw a line first, as long as possible: its length tells the scale.")
        if um <= 0:
            raise SlideError("Enter how long the line is, in um or mm.")
        self._session.opened.set_mpp(um / length, RULER)
        self.cancel()
        if slide.pixel_size is not None:
            self._session.say(f"{told(slide.pixel_size, None)}; remembered for this slide.")

    def wording(self) -> str:
        """The line's length for people."""
        length, slide = self.length, self._slide
        if slide is None or not length:
            return ""
        if slide.pixel_size is None:
            return f"{length:,.0f} px"
        um = length * slide.mpp
        return f"{um / 1000:.4g} mm" if um >= 1000 else f"{um:.4g} um"

    def _drawn(self, event: Any) -> None:
        """One line is enough; from now on its ends can be moved."""
        if str(getattr(event.action, "value", "")) == "added":
            self._settled.start(0)  # not within napari's own drawing
        self.changed.emit()

    def _adjust(self) -> None:
        if self.layer is not None and self.layer.nshapes:
            self.layer.mode = "direct"
            self._moved()

    def _moved(self, event: object = None) -> None:
        layer, text = self.layer, self.wording()
        if layer is None or not layer.nshapes:
            return
        if len(layer.features) != layer.nshapes or layer.features["length"].iloc[-1] != text:
            layer.features = {"length": [*[""] * (layer.nshapes - 1), text]}
            self.changed.emit()

    def _slide_changed(self) -> None:
        if self._slide is not None and self._slide is not self._session.slide:
            self.cancel()
        self.changed.emit()

    def _layer_gone(self, event: object = None) -> None:
        if self.layer is not None and self.layer not in self._session.viewer.layers:
            self._end()

    def _end(self) -> None:
        had, self.layer, self._slide = self.layer is not None, None, None
        before, self._before = self._before, None
        layers = self._session.viewer.layers
        if had:
            if before is not None and before in layers:
                layers.selection.active = before
            self.changed.emit()
