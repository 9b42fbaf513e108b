"""How far to trust what is shown: every predicted tile is judged, and the doubtful are hatched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from ..inference.prediction import Prediction
from .hatching import Hatching, make_hatching
from .links import SignalConnections
from .overlay import PredictionOverlay
from .session import ViewerSession

if TYPE_CHECKING:
    from ..export.anndata import SpotReliability
    from ..export.saved import SavedReliability
    from ..model.reference import TrainingReference


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
        self._removing = False  # our own layers come and go
        connections.connect(self.refresh, session.overlays_changed, session.settings_changed)
        connections.connect(self._update_overlay, session.overlay_updated)
        connections.connect(self._on_layer_removed, session.viewer.layers.events.removed)

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
        if self._session.settings.hatch:
            self._hatch_rows(overlay, state, new if state.hatching else np.arange(size))
        elif state.hatching is not None:
            self._remove_layer(state)

    def _hatch_rows(self, overlay: PredictionOverlay, state: _OverlayReliability, rows: NDArray[np.int64]) -> None:
        rows = rows[state.unreliable[rows]]
        if not len(rows):
            return
        if state.hatching is None:
            state.hatching = make_hatching(overlay)
            self._add_layer(overlay, state.hatching.layer)
        state.hatching.add_rows(rows)

    def _add_layer(self, overlay: PredictionOverlay, layer: Layer) -> None:
        """Right above its map, shown and hidden with it; the person's selection stays."""
        layers = self._session.viewer.layers
        selected = set(layers.selection)
        self._session.attach_layer_like(overlay.layer, layer)
        layers.insert(layers.index(overlay.layer) + 1, layer)
        layers.selection = selected
        layer.visible = overlay.layer.visible

        def follow(event: object = None) -> None:
            layer.visible = overlay.layer.visible

        overlay.layer.events.visible.connect(follow)

    def _remove_layer(self, state: _OverlayReliability) -> None:
        layers, marks = self._session.viewer.layers, state.hatching
        state.hatching = None
        if marks is not None and marks.layer in layers:
            self._removing = True
            layers.remove(marks.layer)
            self._removing = False

    def _discard(self, key: int) -> None:
        known = self._entries.pop(key, None)
        if known is not None:
            self._remove_layer(known[1])

    def _on_layer_removed(self, event: object) -> None:
        """Deleting the hatching by hand means to do without it."""
        layer = getattr(event, "value", None)
        if not self._removing and any(s.hatching and s.hatching.layer is layer for _, s in self._list_entries()):
            self._session.change_settings(hatch=False)

    def _list_entries(self) -> list[tuple[PredictionOverlay, _OverlayReliability]]:
        return list(self._entries.values())


def get_reliability(
    prediction: Prediction, reference: TrainingReference | SavedReliability, rows: NDArray[np.int64] | slice
) -> SpotReliability:
    """The reliability of some rows of a prediction, or what its file tells of them."""
    from ..export.saved import SavedReliability
    from ..quality.reliability import score_reliability

    if isinstance(reference, SavedReliability):
        which = np.arange(len(reference.score))[rows]
        said = tuple(reference.reasons_by_spot[row] for row in which)
        return SavedReliability(reference.score[which], reference.unreliable[which], said)
    return score_reliability(reference, prediction.qc_features[rows], prediction.tokens[rows])


def format_reliability(prediction: Prediction, reference: TrainingReference | SavedReliability | None, row: int) -> str:
    """One spot's reliability in words: "reliability: poor (out of focus)"; "" where unknown."""
    from ..quality.reliability import reliability_level

    if reference is None:
        return ""
    found = get_reliability(prediction, reference, slice(row, row + 1) if row >= 0 else slice(row, None))
    if not np.isfinite(found.score[0]):
        return ""
    reasons = found.reasons(0)
    return f"reliability: {reliability_level(float(found.score[0]))}" + (
        f" ({', '.join(reasons)})" if reasons else ""
    )
