"""Find the tile map of the current checkpoint on a slide, with all genes decoded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .....errors import SpotsError
from .....inference.prediction import Prediction
from .....spatial.tile_grid import TileGrid
from ....layers.prediction_layers import GridOverlay
from ....session.prediction_overlay import PredictionOverlay
from ....session.slide_layer import ViewerSlide
from ..quality_controller import QualityController


def get_quality_slide(quality: QualityController) -> ViewerSlide | None:
    """The slide of the chosen section, else the one chosen in the session."""
    section = quality.section
    if section is None or section.slide is None:
        return quality.session.slide
    return section.slide


def find_tile_map(quality: QualityController) -> GridOverlay | None:
    """The newest map on that slide by the checkpoint of now with a predicted tile, if any."""
    session, slide = quality.session, get_quality_slide(quality)
    if slide is None or session.checkpoint is None:
        return None
    made = (session.checkpoint.sha256, slide.slide.fingerprint())
    for overlay in reversed(session.overlays):
        by = overlay.prediction.provenance
        same = (by.get("checkpoint_sha256"), by.get("slide_fingerprint")) == made
        if isinstance(overlay, GridOverlay) and same and overlay.prediction.predicted_mask.any():
            return overlay
    return None


def decode_all_genes(overlay: PredictionOverlay) -> Prediction:
    """What is predicted of a map, with genes that nobody asked for yet; for a thread."""
    made = overlay.prediction.select_predicted()
    if not len(made.values):
        raise SpotsError("The map has no finished tile yet; predict it first.")
    values, lacking = made.values.copy(), made.find_incomplete_columns()
    if len(lacking):
        values[:, lacking] = overlay.decode(made.tokens, lacking.tolist())
    return replace(made, values=values)


def expression_profiles(prediction: Prediction) -> NDArray[np.float32]:
    """(N, G) without genes predicted from their text: their values are on another scale."""
    known = [
        i for i, s in enumerate(prediction.panel.symbols) if s not in prediction.zero_shot_symbols
    ]
    return prediction.values[:, known]


def match_cluster_labels(
    labels: NDArray[np.integer], reference: NDArray[np.integer]
) -> NDArray[np.int64]:
    """The same clusters (N,), each with the number of the one of ``like`` that it shares most
    spots with, so that they have its colour; those that are left get numbers of their own."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((int(labels.max()) + 1, int(reference.max()) + 1))
    np.add.at(shared, (labels, reference), 1)
    shared[0] = shared[:, 0] = 0
    number = np.zeros(len(shared), np.int64)
    for mine, theirs in zip(*linear_sum_assignment(-shared), strict=True):
        if shared[mine, theirs]:
            number[mine] = theirs
    fresh = int(reference.max())
    for mine in range(1, len(number)):
        if not number[mine]:
            fresh += 1
            number[mine] = fresh
    return number[labels]


def tile_labels_at(
    grid: TileGrid, labels: NDArray[np.integer], xy: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(N,) of the tiles' labels (T,), those that places (N, 2) in level-0 px lie in; else 0."""
    label = dict(zip(map(tuple, grid.cells.tolist()), labels.tolist(), strict=True))
    places = np.floor(xy / grid.pitch).astype(int).tolist()
    return np.array([label.get(tuple(place), 0) for place in places], np.int64)
