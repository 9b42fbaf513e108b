"""What is usual for each gene: on this slide, or else in the training sections."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from ...inference.prediction import Prediction
from ..session.viewer_session import ViewerSession
from .overlay_lookup import find_overlay_slide
from .prediction_layers import GridOverlay

MIN_TILES = 50  # of a map, for a mean and a standard deviation
MIN_TISSUE_SHARE = 0.5  # of the tissue in the map, to be that of the slide and not of a region
MIN_STD = 1e-6
SAME_INPUTS = ("checkpoint_sha256", "slide_fingerprint", "mpp")  # of a spot and a map


@dataclass(frozen=True, eq=False)
class GeneBaseline:
    """Mean and standard deviation of genes.

    Attributes
    ----------
    mean, std : dict of str to float
        By gene symbol, on the label scale.
    source : str
        Of what, e.g. ``the 193 tiles of this slide``.
    advice : str
        A sentence about a better source; may be empty.
    """

    mean: dict[str, float]
    std: dict[str, float]
    source: str
    advice: str = ""

    def compute_excess(self, symbol: str, value: float) -> float:
        """Return how many standard deviations a value is above the mean; NaN if unknown."""
        std = self.std.get(symbol, np.nan)
        return (value - self.mean.get(symbol, np.nan)) / std if std > MIN_STD else np.nan


class GeneBaselines:
    """Finds the baseline of a spot; that of a map is computed once."""

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._last: tuple[ref[Prediction], int, GeneBaseline] | None = None  # with its tiles

    def find(self, spot: Prediction) -> GeneBaseline | None:
        """Return the baseline of the spot's slide and checkpoint.

        That of a finished map of at least half of the tissue, else that of the training sections;
        None if the checkpoint has no statistics of these either.
        """
        overlay = self._find_map(spot)
        if overlay is None:
            return self._of_training(spot)
        prediction = overlay.prediction
        count = int(prediction.predicted_mask.sum())
        if self._last is None or self._last[0]() is not prediction or self._last[1] != count:
            self._last = ref(prediction), count, _of_map(prediction, self._tissue_share(overlay))
        return self._last[2]

    def _find_map(self, spot: Prediction) -> GridOverlay | None:
        """The newest finished map of enough of the slide with all of the spot's genes."""
        for overlay in reversed(self._session.overlays):
            if not isinstance(overlay, GridOverlay):
                continue
            prediction = overlay.prediction
            same = all(
                prediction.provenance.get(key) == spot.provenance.get(key) for key in SAME_INPUTS
            )
            if not same or not set(spot.panel.symbols) <= set(prediction.panel.symbols):
                continue
            predicted = prediction.predicted_mask
            is_finished = (predicted | prediction.failed_mask).all()
            if not is_finished or predicted.sum() < MIN_TILES:
                continue
            share = self._tissue_share(overlay)
            if share is not None and share < MIN_TISSUE_SHARE:
                continue
            if not len(prediction.find_incomplete_columns()):
                return overlay
        return None

    def _tissue_share(self, overlay: GridOverlay) -> float | None:
        """Share of the slide's tissue that the predicted tiles stand for; None if unknown."""
        slide = find_overlay_slide(self._session, overlay)
        grid = overlay.prediction.target.grid
        if slide is None or slide.tissue is None or slide.tissue.is_empty or grid is None:
            return None
        area = float(overlay.prediction.predicted_mask.sum()) * grid.pitch**2
        return min(1.0, area / float(slide.tissue.area))

    def _of_training(self, spot: Prediction) -> GeneBaseline | None:
        checkpoint = self._session.checkpoint
        if checkpoint is None or spot.provenance.get("checkpoint_sha256") != checkpoint.sha256:
            return None
        mean = checkpoint.network.label_mean.cpu().numpy()
        std = checkpoint.network.label_std.cpu().numpy()
        if not mean.any():  # a published network was trained on other labels and has none
            return None
        symbols = checkpoint.panel.symbols  # zero-shot genes have no measured values
        return GeneBaseline(
            dict(zip(symbols, mean.tolist(), strict=True)),
            dict(zip(symbols, std.tolist(), strict=True)),
            "the training sections",
            "Predict the whole tissue to compare with this slide instead.",
        )


def _of_map(prediction: Prediction, tissue_share: float | None) -> GeneBaseline:
    values: NDArray[np.float32] = prediction.values[prediction.predicted_mask]
    mean = dict(zip(prediction.panel.symbols, values.mean(axis=0).tolist(), strict=True))
    std = dict(zip(prediction.panel.symbols, values.std(axis=0).tolist(), strict=True))
    for symbol in (s.symbol for s in prediction.scores if prediction.has_gene(s.symbol)):
        scores = prediction.get_gene_values(symbol)[prediction.predicted_mask]
        mean[symbol], std[symbol] = float(scores.mean()), float(scores.std())
    share = "" if tissue_share is None else f" ({tissue_share:.0%} of its tissue)"
    return GeneBaseline(
        mean,
        std,
        f"this slide's {len(values):,} predicted tiles{share}",
    )
