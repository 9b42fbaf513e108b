"""A frame on the slide around the spot whose genes the panel shows."""

from __future__ import annotations

from napari.layers import Points

from ..session.slide_layer import METADATA_PREFIX
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from .value_layers import make_spots_layer

MARKER_COLOR, MARKER_WIDTH = "#00e5ff", 0.06  # width in sides of the frame


class SpotMarker:
    """Frames the session's spot with a square of its tile; there is no layer without a spot."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._layer: Points | None = None
        connections.connect(self._update, session.spot_changed, session.slide_changed)
        session.layers.watch_removal(lambda: [self._layer], self._on_removed, connections)

    def close(self) -> None:
        """Remove the frame."""
        self._session.layers.remove(self._layer)
        self._layer = None

    def _on_removed(self) -> None:
        self._layer = None

    def _update(self) -> None:
        session, spot, slide = self._session, self._session.spot, self._session.slide
        self.close()
        if spot is None or slide is None or slide.pixel_size is None:
            return
        if spot.provenance.get("slide_fingerprint") != slide.slide.fingerprint():
            return
        grid, patch_um = spot.target.grid, spot.provenance.get("patch_um")
        side_um = grid.pitch_um if grid is not None else patch_um
        self._layer = make_spots_layer(
            spot.target.spots.xy[-1:],
            slide.mpp,
            "this spot",
            side_um,
            symbol="square",
            face_color="transparent",
            border_color=MARKER_COLOR,
            border_width=MARKER_WIDTH,
            metadata={METADATA_PREFIX: "this spot"},
        )
        session.layers.insert(self._layer, slide)
