"""Reliability of the predicted tiles, and hatching over the unreliable ones.

The hatching is a layer of its own. The tiles below it stay visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ...inference.prediction import Prediction
from ...spatial.coordinates import swap_xy
from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from .prediction_layers import GridOverlay

if TYPE_CHECKING:
    from ...export.saved_result import SavedReliability
    from ...inference.prediction import SpotReliability
    from ...model.checkpoint.training_reference import TrainingReference


STRIPE_TILE_PX = 8  # of a tile's side in the picture of stripes
MAX_FINE_TILES = 40_000  # tiles; larger maps get coarser stripes, so that the picture stays small
STRIPE_RGBA = (25, 25, 25, 210)
BACKGROUND_RGBA = (225, 225, 225, 120)


class Hatching(Protocol):
    """Marks rows of one overlay's prediction in a layer of its own."""

    @property
    def layer(self) -> Layer: ...

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        """Mark these rows too."""
        ...


def make_hatching(overlay: PredictionOverlay) -> Hatching:
    """An empty hatching for an overlay; its layer is not in any viewer yet."""
    if isinstance(overlay, GridOverlay):
        return GridHatching(overlay)
    return SpotsHatching(overlay)


class GridHatching:
    """A veil with stripes, as one RGBA picture over the grid."""

    def __init__(self, overlay: GridOverlay) -> None:
        grid = overlay.prediction.target.grid
        assert grid is not None
        self._tile_indices = (grid.cells - grid.first_cell)[:, ::-1]  # row, column
        side = STRIPE_TILE_PX if len(grid) <= MAX_FINE_TILES else STRIPE_TILE_PX // 4
        rows, columns = grid.shape
        self._tile_pixels = np.zeros((rows, side, columns, side, 4), np.uint8)
        self._stripes = make_stripes(side)
        tile = np.asarray(overlay.layer.scale)
        self.layer = Image(
            self._rgba,
            rgb=True,
            name=_hatching_name(overlay),
            scale=tile / side,
            translate=overlay.layer.translate + tile * (0.5 / side - 0.5),
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            interpolation2d="nearest",
            blending="translucent",
            metadata={METADATA_PREFIX: "hatching"},
        )

    @property
    def _rgba(self) -> NDArray[np.uint8]:
        rows, side, columns, _, _ = self._tile_pixels.shape
        return self._tile_pixels.reshape(rows * side, columns * side, 4)

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        row, column = self._tile_indices[rows].T
        self._tile_pixels[row, :, column] = self._stripes
        self.layer.data = self._rgba


class SpotsHatching:
    """A cross on each spot."""

    def __init__(self, overlay: PredictionOverlay) -> None:
        self._overlay = overlay
        self._rows = np.empty(0, np.int64)
        source = overlay.layer
        assert isinstance(source, Points)
        self.layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name=_hatching_name(overlay),
            symbol="x",
            size=0.7 * float(np.mean(source.size)) if len(source.data) else 10,
            scale=source.scale,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            face_color="#191919",
            border_color="white",
            border_width=0.08,
        )

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        self._rows = np.concatenate([self._rows, rows])
        source = self._overlay.layer
        assert isinstance(source, Points)
        self.layer.data = swap_xy(self._overlay.prediction.target.spots.xy[self._rows])
        if len(source.data):
            self.layer.size = 0.7 * float(np.mean(source.size))


def _hatching_name(overlay: PredictionOverlay) -> str:
    """Without the gene: tiles are as reliable for all of them."""
    return f"unreliable - {overlay.layer.name.partition(' - ')[2] or overlay.layer.name}"


def make_stripes(side: int) -> NDArray[np.uint8]:
    """(side, side, 4) a veil with diagonal stripes that go on from tile to tile."""
    y, x = np.mgrid[:side, :side]
    dark = (x + y) % side < max(1, side // 4)
    return np.where(dark[..., None], STRIPE_RGBA, BACKGROUND_RGBA).astype(np.uint8)


@dataclass
class _OverlayReliability:
    """What is known of one overlay: which rows are judged, and which of them are doubtful.

    size : spots when it was judged; clicked spots gather in one overlay that grows.
    """

    spot_count: int
    scored: NDArray[np.bool_]
    unreliable: NDArray[np.bool_]
    hatching: Hatching | None = None


class ReliabilityOverlay:
    """Judges the overlays of a session as they grow, and hatches what should not be relied on."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._entries: dict[int, tuple[PredictionOverlay, _OverlayReliability]] = {}
        connections.connect(self.refresh, session.overlays_changed, session.settings_changed)
        connections.connect(self._update_overlay, session.overlay_updated)
        session.layers.watch_removal(
            lambda: [e.hatching.layer for _, e in self._entries.values() if e.hatching is not None],
            lambda: session.change_settings(hatch_unreliable=False),
            connections,
        )

    def close(self) -> None:
        for key in list(self._entries):
            self._discard(key)

    def count_unreliable(self, overlay: PredictionOverlay) -> tuple[int, int]:
        """How many of its predicted tiles are not to be relied on, and of how many."""
        known = self._entries.get(id(overlay))
        if known is None:
            return 0, 0
        return int(known[1].unreliable.sum()), int(known[1].scored.sum())

    def refresh(self) -> None:
        """Follow the overlays that are there and the setting."""
        here = {id(o) for o in self._session.overlays}
        for key in [k for k in self._entries if k not in here]:
            self._discard(key)
        for overlay in self._session.overlays:
            self._update_overlay(overlay)

    def _update_overlay(self, overlay: PredictionOverlay) -> None:
        if overlay.reference is None:
            return
        prediction = overlay.prediction
        size = len(prediction.target)
        kept = self._entries.get(id(overlay))
        if kept is None or kept[1].spot_count != size:
            self._discard(id(overlay))
            kept = (overlay, _OverlayReliability(size, np.zeros(size, bool), np.zeros(size, bool)))
            self._entries[id(overlay)] = kept
        state = kept[1]
        new = np.flatnonzero(prediction.predicted_mask & ~state.scored)
        if len(new):
            state.scored[new] = True
            state.unreliable[new] = get_reliability(prediction, overlay.reference, new).unreliable
        if self._session.settings.hatch_unreliable:
            self._hatch_rows(overlay, state, new if state.hatching else np.arange(size))
        elif state.hatching is not None:
            self._remove_layer(state)

    def _hatch_rows(
        self, overlay: PredictionOverlay, state: _OverlayReliability, rows: NDArray[np.int64]
    ) -> None:
        rows = rows[state.unreliable[rows]]
        if not len(rows):
            return
        if state.hatching is None:
            state.hatching = make_hatching(overlay)
            self._add_layer(overlay, state.hatching.layer)
        state.hatching.add_rows(rows)

    def _add_layer(self, overlay: PredictionOverlay, layer: Layer) -> None:
        """Insert a hatching directly above its map; it is shown and hidden with the map."""
        stack = self._session.layers
        stack.attach_like(overlay.layer, layer)
        stack.insert(layer, above=[overlay.layer])
        layer.visible = overlay.layer.visible

        def follow(event: object = None) -> None:
            layer.visible = overlay.layer.visible

        overlay.layer.events.visible.connect(follow)

    def _remove_layer(self, state: _OverlayReliability) -> None:
        hatching, state.hatching = state.hatching, None
        if hatching is not None:
            self._session.layers.remove(hatching.layer)

    def _discard(self, key: int) -> None:
        known = self._entries.pop(key, None)
        if known is not None:
            self._remove_layer(known[1])


def get_reliability(
    prediction: Prediction,
    reference: TrainingReference | SavedReliability,
    rows: NDArray[np.int64] | slice,
) -> SpotReliability:
    """The reliability of some rows of a prediction, or what its file tells of them."""
    from ...export.saved_result import SavedReliability
    from ...quality.reliability import score_reliability

    if isinstance(reference, SavedReliability):
        which = np.arange(len(reference.score))[rows]
        said = tuple(reference.reasons_by_spot[row] for row in which)
        return SavedReliability(reference.score[which], reference.unreliable[which], said)
    return score_reliability(reference, prediction.qc_features[rows], prediction.tokens[rows])


def format_reliability(
    prediction: Prediction, reference: TrainingReference | SavedReliability | None, row: int
) -> str:
    """One spot's reliability in words: "reliability: poor (out of focus)"; "" where unknown."""
    from ...quality.reliability import reliability_level

    if reference is None:
        return ""
    found = get_reliability(
        prediction, reference, slice(row, row + 1) if row >= 0 else slice(row, None)
    )
    if not np.isfinite(found.score[0]):
        return ""
    reasons = found.reasons(0)
    return f"reliability: {reliability_level(float(found.score[0]))}" + (
        f" ({', '.join(reasons)})" if reasons else ""
    )
