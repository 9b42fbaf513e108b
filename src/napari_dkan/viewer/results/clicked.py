"""Clicks on a map that came from a file: what the file tells, where nothing can be predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ..session import ViewerSession


def show_saved_spot(session: ViewerSession, world: tuple[float, float]) -> bool:
    """Where a reopened map was clicked (y, x) whose checkpoint or slide is not here: take the
    spot from the map. False leaves the click to predicting."""
    from ...export.saved import SavedReliability
    from ..trust import get_reliability

    order = list(session.viewer.layers)
    for overlay in sorted(session.overlays, key=lambda o: -order.index(o.layer)):
        prediction = overlay.prediction
        if not (overlay.from_file and overlay.layer.visible) or _is_predictable(session, prediction):
            continue
        row = overlay.row_at(world)
        if row is None:
            continue
        rows, reference = np.array([row]), overlay.reference
        known = get_reliability(prediction, reference, rows) if isinstance(reference, SavedReliability) else None
        session.show_message("")
        session.set_spot(prediction.take(rows), known if isinstance(known, SavedReliability) else None)
        return True
    return False


def _is_predictable(session: ViewerSession, prediction: Prediction) -> bool:
    """Whether a click predicts just what the map shows: its checkpoint and slide are chosen."""
    checkpoint, slide, by = session.checkpoint, session.slide, prediction.provenance
    if checkpoint is None or slide is None:
        return False
    chosen = checkpoint.sha256, slide.slide.fingerprint()
    return (by.get("checkpoint_sha256"), by.get("slide_fingerprint")) == chosen
