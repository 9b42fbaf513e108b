"""Maps of one grid: a job on more of its tiles extends the map that is there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...inference.prediction import Prediction
from ...inference.target import Target, merge_grid_targets
from ..layers.overlay_lookup import is_current_map
from ..layers.prediction_layers import GridOverlay
from ..session.prediction_overlay import PredictionOverlay
from ..session.viewer_session import ViewerSession


def find_extendable_map(session: ViewerSession, target: Target) -> PredictionOverlay | None:
    """Return the newest map of the same slide, genes and grid, which takes the new tiles."""
    panel = session.model_gene_panel
    for overlay in reversed(session.overlays):
        prediction = overlay.prediction
        if (
            is_current_map(session, overlay)
            and prediction.panel == panel
            and merge_grid_targets(prediction.target.take(np.array([0])), target) is not None
        ):
            return overlay
    return None


def extend_map(
    create_empty: Callable[[Target], tuple[Prediction, object]],
    target: Target,
    previous: PredictionOverlay | None,
) -> tuple[Prediction, NDArray[np.int64], PredictionOverlay | None]:
    """Create the prediction of a job, with the tiles of a previous map where it has the same grid.

    Returns
    -------
    tuple
        The prediction, the rows (N,) of the target in it, and the map that it replaces, if any.
    """
    merged = None if previous is None else merge_grid_targets(previous.prediction.target, target)
    if merged is not None and previous is not None:
        prediction, _ = create_empty(merged[0])
        if prediction.tokens.shape[1] == previous.prediction.tokens.shape[1]:  # or it is of a file
            prediction.copy_first_rows(previous.prediction)
            return prediction, merged[1], previous
    return create_empty(target)[0], np.arange(len(target)), None


def take_place(session: ViewerSession, new: GridOverlay, old: GridOverlay) -> None:
    """Show a map in place of the one whose layer it has taken, with place, opacity and name."""
    new.is_mixed = old.is_mixed
    if not new.is_mixed:
        new.layer.visible = True
    session.replace_overlay(old, new)
