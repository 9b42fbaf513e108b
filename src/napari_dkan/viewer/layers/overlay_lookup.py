"""Find predicted maps and their slides, and decode the genes that a map lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from .prediction_layers import GridOverlay

if TYPE_CHECKING:
    from ...inference.prediction import Prediction


DECODE_CHUNK = 4096  # tiles per call of the decoder
_CELL_KEY = np.array([2**31, 1])  # one number for each (column, row)
NO_TILE_MESSAGE = "The map has no finished tile yet; predict it first."


def get_selected_map(session: ViewerSession) -> PredictionOverlay | None:
    """Return the selected map, else the newest one with a predicted tile.

    Spots that were clicked one by one, and maps of another image or pixel size than their slide has
    now, are returned only if they are selected or if there is nothing else.
    """
    overlays = [o for o in session.overlays if o.prediction.predicted_mask.any()]
    active = session.viewer.layers.selection.active
    selected = [o for o in overlays if o.layer is active]
    overlays = [o for o in overlays if not session.is_outdated(o)] or overlays
    found = selected or [o for o in overlays if not o.from_clicks] or overlays
    return found[-1] if found else None


def list_saved_maps(session: ViewerSession) -> list[PredictionOverlay]:
    """Return the maps that can be saved: the selected one first, then others of its slide.

    Maps of several pitches or checkpoints stand side by side. Clicked spots, and maps of another
    image or pixel size, count only where `get_selected_map` finds nothing else.
    """
    first = get_selected_map(session)
    if first is None:
        return []
    fingerprint = first.prediction.provenance.get("slide_fingerprint")
    others = [
        o
        for o in session.overlays
        if o is not first
        and not o.from_clicks
        and not session.is_outdated(o)
        and o.prediction.predicted_mask.any()
        and o.prediction.provenance.get("slide_fingerprint") == fingerprint
    ]
    return [first, *others]


def is_current_map(session: ViewerSession, overlay: PredictionOverlay) -> bool:
    """Return whether a map fits the current slide, pixel size and checkpoint."""
    slide, checkpoint = session.slide, session.checkpoint
    if slide is None or slide.pixel_size is None or checkpoint is None or overlay.from_clicks:
        return False
    current = {
        "checkpoint_sha256": checkpoint.sha256,
        "slide_fingerprint": slide.slide.fingerprint(),
        "mpp": slide.mpp,
    }
    return current.items() <= overlay.prediction.provenance.items()


def sort_by_precedence(overlays: Sequence[PredictionOverlay]) -> list[PredictionOverlay]:
    """Sort predictions: where two overlap, the finer grid counts, then the newer prediction."""

    def pitch(overlay: PredictionOverlay) -> float:
        grid = overlay.prediction.target.grid
        return 0.0 if grid is None else grid.pitch_um

    newest_first = overlays[::-1]
    return sorted(newest_first, key=pitch)


def find_covered_tiles(overlay: GridOverlay, above: Sequence[GridOverlay]) -> NDArray[np.bool_]:
    """Return (N,) tiles of a map with the centre of a predicted tile of the maps above it."""
    grid = overlay.prediction.target.grid
    assert grid is not None
    covered = np.zeros(len(grid), bool)
    for other in above:
        other_grid = other.prediction.target.grid
        assert other_grid is not None
        centres = other_grid.centres[other.prediction.predicted_mask]
        cells = np.floor(centres / grid.pitch).astype(np.int64)
        covered |= np.isin(grid.cells @ _CELL_KEY, cells @ _CELL_KEY)
    return covered


def find_tile_map(session: ViewerSession, slide: ViewerSlide | None) -> GridOverlay | None:
    """Return the newest tile map of a slide by the current checkpoint with a predicted tile."""
    if slide is None or session.checkpoint is None:
        return None
    key = session.checkpoint.sha256, slide.slide.fingerprint()
    for overlay in reversed(session.overlays):
        provenance = overlay.prediction.provenance
        is_same = (provenance.get("checkpoint_sha256"), provenance.get("slide_fingerprint")) == key
        if not isinstance(overlay, GridOverlay) or session.is_outdated(overlay):
            continue
        if is_same and overlay.prediction.predicted_mask.any():
            return overlay
    return None


def find_overlay_slide(session: ViewerSession, overlay: PredictionOverlay) -> ViewerSlide | None:
    """Return the slide of a map; None where it is not open."""
    fingerprint = overlay.prediction.provenance.get("slide_fingerprint")
    slides = [s for s in session.slides if s.slide.fingerprint() == fingerprint]
    if session.slide in slides:
        return session.slide
    return slides[-1] if slides else None


def decode_all_genes(overlay: PredictionOverlay) -> Prediction:
    """Return the predicted tiles of a map with all genes decoded; for a worker thread.

    Raises
    ------
    SpotsError
        No tile is predicted yet.
    """
    rows = np.flatnonzero(overlay.prediction.predicted_mask)
    if not len(rows):
        raise SpotsError(NO_TILE_MESSAGE)
    prediction = overlay.prediction.take(rows)
    for _ in decode_missing_genes(overlay, prediction):
        pass
    return prediction


def decode_missing_genes(
    overlay: PredictionOverlay, prediction: Prediction, genes: list[int] | None = None
) -> Iterator[float]:
    """Decode genes that have not been displayed yet, in place.

    Parameters
    ----------
    overlay
        Decodes the genes.
    prediction
        Values that are known stay as they are.
    genes
        Columns of the panel; None: all.

    Yields
    ------
    float
        Fraction that is done.
    """
    incomplete = prediction.find_incomplete_columns()
    columns = incomplete if genes is None else incomplete[np.isin(incomplete, genes)]
    for start in range(0, len(prediction.values) if len(columns) else 0, DECODE_CHUNK):
        rows = slice(start, start + DECODE_CHUNK)
        block = prediction.values[rows][:, columns]
        unknown = ~np.isfinite(block)
        block[unknown] = overlay.decode(prediction.tokens[rows], columns.tolist())[unknown]
        prediction.values[rows, columns] = block
        yield min(1.0, (start + DECODE_CHUNK) / len(prediction.values))
