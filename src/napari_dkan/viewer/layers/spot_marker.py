"""A frame on the slide around the spot whose genes the panel shows."""

from __future__ import annotations

from napari.layers import Points

from ...spatial.coordinates import swap_xy
from ..session.slide_layer import METADATA_PREFIX, ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from .value_layers import make_spots_layer

MARKER_COLOR, MARKER_WIDTH = "#00e5ff", 0.06  # width in sides of the frame


class SpotMarker:
    """Frames the session's spot with a square of its tile; there is no layer without a spot.

    The layer is moved from spot to spot: to insert one takes longer than to paint the bars.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._layer: Points | None = None
        self._slide: ViewerSlide | None = None  # of the layer
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
        if (
            spot is None
            or slide is None
            or slide.pixel_size is None
            or spot.provenance.get("slide_fingerprint") != slide.slide.fingerprint()
        ):
            self.close()
            return
        if self._slide is not slide:
            self.close()
        grid = spot.target.grid
        side_um = spot.provenance["patch_um"] if grid is None else grid.pitch_um
        xy = spot.target.spots.xy[-1:]
        if self._layer is None:
            self._layer = make_spots_layer(
                xy,
                slide.mpp,
                "this spot",
                side_um,
                symbol="square",
                face_color="transparent",
                border_color=MARKER_COLOR,
                border_width=MARKER_WIDTH,
                metadata={METADATA_PREFIX: "this spot"},
            )
            self._slide = slide
            session.layers.insert(self._layer, slide, listed=False)
            return
        self._layer.data = swap_xy(xy)
        self._layer.size = side_um / slide.mpp
