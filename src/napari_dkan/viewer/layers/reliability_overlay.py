"""Reliability of the predicted tiles, and hatching over the unreliable ones.

The hatching is a layer of its own. The tiles below it stay visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

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


HATCHING_NAME = "unreliable"
STRIPE_TILE_PX = 8  # raster px per side of a tile
MAX_FINE_TILES = 40_000  # larger maps get coarser stripes and a smaller raster
STRIPE_RGBA = (25, 25, 25, 210)
BACKGROUND_RGBA = (225, 225, 225, 120)
FADING_OPACITY = 0.08, 0.3  # of a map, between which its hatching fades out
PREPARE_DELAY_MS = 100  # after a map has begun
SIGN_SIZE, SIGN_OFFSET = 0.16, 0.36  # of a spot's sign, in sides of the spot


class Hatching(Protocol):
    """Marks rows of one prediction in a separate layer."""

    @property
    def layer(self) -> Layer:
        """The layer of the marks."""
        ...

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        """Mark more rows."""
        ...

    def follow(self, overlay: PredictionOverlay) -> None:
        """Mark no row any more, of a prediction that has grown or taken the layer."""
        ...


def make_hatching(overlay: PredictionOverlay) -> Hatching:
    """Return an empty hatching of a prediction; its layer is not in a viewer yet."""
    if isinstance(overlay, GridOverlay):
        return GridHatching(overlay)
    return SpotsHatching(overlay)


class GridHatching:
    """Stripes as one RGBA raster over the grid."""

    def __init__(self, overlay: GridOverlay) -> None:
        self.layer = Image(
            self._clear(overlay),
            rgb=True,
            name=HATCHING_NAME,
            **self._transform(overlay),
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            interpolation2d="nearest",
            blending="translucent",
            metadata={METADATA_PREFIX: "hatching"},
        )

    def _clear(self, overlay: PredictionOverlay) -> NDArray[np.uint8]:
        grid = overlay.prediction.target.grid
        assert grid is not None
        self._tile_indices = (grid.cells - grid.first_cell)[:, ::-1]  # row, column
        side = STRIPE_TILE_PX if len(grid) <= MAX_FINE_TILES else STRIPE_TILE_PX // 4
        rows, columns = grid.shape
        self._tile_pixels = np.zeros((rows, side, columns, side, 4), np.uint8)
        self._stripes = make_stripes(side)
        return self._rgba

    def _transform(self, overlay: GridOverlay) -> dict[str, NDArray[np.float64]]:
        side, tile = len(self._stripes), overlay.layer.tile_scale
        translate = overlay.layer.tile_translate + tile * (0.5 / side - 0.5)
        return {"scale": tile / side, "translate": translate}

    def follow(self, overlay: PredictionOverlay) -> None:
        assert isinstance(overlay, GridOverlay)
        self.layer.data = self._clear(overlay)
        for name, value in self._transform(overlay).items():
            setattr(self.layer, name, value)

    @property
    def _rgba(self) -> NDArray[np.uint8]:
        rows, side, columns, _, _ = self._tile_pixels.shape
        return self._tile_pixels.reshape(rows * side, columns * side, 4)

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        row, column = self._tile_indices[rows].T
        self._tile_pixels[row, :, column] = self._stripes
        self.layer.data = self._rgba


class SpotsHatching:
    """A small sign in the upper right corner of each spot, beside its value."""

    def __init__(self, overlay: PredictionOverlay) -> None:
        self._overlay = overlay
        self._rows = np.empty(0, np.int64)
        source = overlay.layer
        assert isinstance(source, Points)
        self.layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name=HATCHING_NAME,
            symbol="x",
            scale=source.scale,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            face_color="#191919",
            border_color="white",
            border_width=0.15,
            metadata={METADATA_PREFIX: "hatching"},
        )

    def follow(self, overlay: PredictionOverlay) -> None:
        self._overlay, self._rows = overlay, np.empty(0, np.int64)

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        self._rows = np.concatenate([self._rows, rows])
        source = self._overlay.layer
        assert isinstance(source, Points)
        side = float(np.mean(source.size)) if len(source.data) else float(source.current_size)
        corner = np.array([1, -1]) * SIGN_OFFSET * side
        self.layer.data = swap_xy(self._overlay.prediction.target.spots.xy[self._rows] + corner)
        self.layer.size = SIGN_SIZE * side


def make_stripes(side: int) -> NDArray[np.uint8]:
    """Return a tile (side, side, 4) with diagonal stripes that continue in the next tile."""
    y, x = np.mgrid[:side, :side]
    dark = (x + y) % side < max(1, side // 4)
    return np.where(dark[..., None], STRIPE_RGBA, BACKGROUND_RGBA).astype(np.uint8)


@dataclass(eq=False)
class _OverlayReliability:
    """Which rows of a prediction are scored, and which of them are unreliable."""

    overlay: PredictionOverlay
    scored: NDArray[np.bool_]
    unreliable: NDArray[np.bool_]
    hatching: Hatching | None = None

    def follow(self, overlay: PredictionOverlay) -> None:
        """Take the prediction that has grown out of the one before, whose rows come first."""
        n_kept = len(self.scored) if overlay.reference is self.overlay.reference else 0
        n_more = len(overlay.prediction.target) - n_kept
        self.scored = np.pad(self.scored[:n_kept], (0, n_more))
        self.unreliable = np.pad(self.unreliable[:n_kept], (0, n_more))
        self.overlay = overlay
        if self.hatching is not None:
            self.hatching.follow(overlay)


class ReliabilityOverlay:
    """Scores the predictions of a session as they grow, and hatches unreliable tiles."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._states: list[_OverlayReliability] = []
        connections.connect(self.refresh, session.overlays_changed, session.settings_changed)
        connections.connect(self._update_overlay, session.overlay_updated)
        session.layers.watch_removal(
            lambda: [s.hatching.layer for s in self._states if s.hatching is not None],
            lambda: session.change_settings(hatch_unreliable=False),
            connections,
        )

    def close(self) -> None:
        """Remove all hatchings."""
        for state in list(self._states):
            self._discard(state)

    def count_unreliable(self, overlay: PredictionOverlay) -> tuple[int, int]:
        """Return the numbers of unreliable and of scored tiles."""
        state = self._find_state(overlay)
        return (0, 0) if state is None else (int(state.unreliable.sum()), int(state.scored.sum()))

    def _find_state(self, overlay: PredictionOverlay) -> _OverlayReliability | None:
        return next((s for s in self._states if s.overlay is overlay), None)

    def refresh(self) -> None:
        """Follow the predictions and the setting `hatch_unreliable`."""
        overlays = self._session.overlays
        for state in [s for s in self._states if s.overlay not in overlays]:
            extended = [o for o in overlays if o.layer is state.overlay.layer]
            if not extended or extended[0].reference is None:
                self._discard(state)
            else:
                self._follow(state, extended[0])
        for overlay in overlays:
            self._update_overlay(overlay)

    def _update_overlay(self, overlay: PredictionOverlay) -> None:
        if overlay.reference is None:
            return
        prediction, size = overlay.prediction, len(overlay.prediction.target)
        state = self._find_state(overlay)
        if state is None:
            state = _OverlayReliability(overlay, np.zeros(size, bool), np.zeros(size, bool))
            self._states.append(state)
        elif len(state.scored) != size:  # a prediction of clicked spots grows
            self._follow(state, overlay)
        new = np.flatnonzero(prediction.predicted_mask & ~state.scored)
        if len(new):
            state.scored[new] = True
            state.unreliable[new] = get_reliability(prediction, overlay.reference, new).unreliable
        if self._session.settings.hatch_unreliable:
            self._hatch_rows(state, new if state.hatching else np.arange(size))
            if state.hatching is None and not state.scored.any():
                # napari needs a moment for a layer, so it is made before the first tile comes, but
                # the press that begins the map is answered before.
                QTimer.singleShot(PREPARE_DELAY_MS, partial(self._prepare, state))
        if not self._session.settings.hatch_unreliable or (
            state.scored.all() and not state.unreliable.any()
        ):
            self._remove_layer(state)

    def _follow(self, state: _OverlayReliability, overlay: PredictionOverlay) -> None:
        state.follow(overlay)
        if state.hatching is not None:
            self._hatch_rows(state, np.flatnonzero(state.scored))

    def _hatch_rows(self, state: _OverlayReliability, rows: NDArray[np.int64]) -> None:
        """Hatch the unreliable ones of these rows."""
        rows = rows[state.unreliable[rows]]
        if not len(rows):
            return
        if state.hatching is None:
            state.hatching = self._add_hatching(state)
        state.hatching.add_rows(rows)

    def _prepare(self, state: _OverlayReliability) -> None:
        is_wanted = state in self._states and self._session.settings.hatch_unreliable
        if is_wanted and state.hatching is None and not state.scored.all():
            state.hatching = self._add_hatching(state)

    def _add_hatching(self, state: _OverlayReliability) -> Hatching:
        """Insert a hatching directly above its map; it is shown, hidden and faded with the map."""
        hatching = make_hatching(state.overlay)
        layer, source, stack = hatching.layer, state.overlay.layer, self._session.layers
        stack.attach_like(source, layer)
        stack.insert(layer, above=[source], listed=False)

        def follow(event: object = None) -> None:
            layer.visible = source.visible or state.overlay.is_mixed
            layer.opacity = float(np.interp(source.opacity, FADING_OPACITY, (0.0, 1.0)))

        source.events.visible.connect(follow)
        source.events.opacity.connect(follow)
        follow()
        return hatching

    def _remove_layer(self, state: _OverlayReliability) -> None:
        hatching, state.hatching = state.hatching, None
        if hatching is not None:
            self._session.layers.remove(hatching.layer)

    def _discard(self, state: _OverlayReliability) -> None:
        self._states.remove(state)
        self._remove_layer(state)


def get_reliability(
    prediction: Prediction,
    reference: TrainingReference | SavedReliability,
    rows: NDArray[np.int64] | slice,
) -> SpotReliability:
    """Return the reliability of rows of a prediction: computed, or from its file."""
    from ...export.saved_result import SavedReliability
    from ...quality.reliability import score_reliability

    if isinstance(reference, SavedReliability):
        selected = np.arange(len(reference.score))[rows]
        reasons = tuple(reference.reasons_by_spot[row] for row in selected)
        return SavedReliability(reference.score[selected], reference.unreliable[selected], reasons)
    return score_reliability(reference, prediction.qc_features[rows], prediction.tokens[rows])


def format_reliability(
    prediction: Prediction, reference: TrainingReference | SavedReliability | None, row: int
) -> str:
    """Format the reliability of a spot as "reliability: poor (out of focus)"; "" if unknown."""
    from ...quality.reliability import reliability_level

    if reference is None:
        return ""
    reliability = get_reliability(
        prediction, reference, slice(row, row + 1) if row >= 0 else slice(row, None)
    )
    if not np.isfinite(reliability.score[0]):
        return ""
    reasons = reliability.reasons(0)
    return f"reliability: {reliability_level(float(reliability.score[0]))}" + (
        f" ({', '.join(reasons)})" if reasons else ""
    )
