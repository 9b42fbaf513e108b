"""Predicting at the spots of a measured section, and comparing, off the GUI thread.

The same path as `napari-dkan evaluate`: labels on the checkpoint's scale, the labelled spots as
an array target, and so the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ..session import ViewerSlide, ViewerSession
from .section import LoadedSection

REDRAW_INTERVAL_S = 2.0  # drawing maps of spots takes longer than predicting a batch of them

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...model import Checkpoint
    from ...quality.compare import Comparison
    from ...quality.placement import RegistrationCheck
    from ...training.measured import MeasuredSection


@dataclass(frozen=True)
class ComparisonProgress:
    """What is being done, how far it is, and whether the prediction has new values."""

    description: str
    done: int = 0
    total: int = 0
    has_new_values: bool = False


@dataclass(frozen=True)
class MeasuredPredictedPair:
    """The labels of a section, and the prediction at its labelled spots as far as it is there."""

    measured: MeasuredSection
    prediction: Prediction

    def measured_values(self, symbol: str) -> NDArray[np.float32]:
        """(N,) labels; NaN for a gene that the section does not measure."""
        if symbol not in self.measured.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.measured.labels.values[:, self.measured.panel.row(symbol)]

    def predicted_values(self, symbol: str) -> NDArray[np.float32]:
        """(N,) predictions, NaN where there is none yet or the gene is not in the panel."""
        if symbol not in self.prediction.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.prediction.get_gene_values(symbol)

    def prediction_row(self, comparison_row: int) -> int:
        """The row here that a row of the comparison is: that leaves out what cannot be read."""
        return int(np.flatnonzero(self.prediction.predicted_mask)[comparison_row])

    def prediction_at(self, comparison_row: int) -> Prediction:
        """The prediction of one spot, by its row of the comparison."""
        return self.prediction.take(np.array([self.prediction_row(comparison_row)]))


def measured_labels_at(comparison: Comparison, row: int, spot: Prediction) -> dict[str, float]:
    """By gene, the labels of a row, if that is where a clicked spot lies; else nothing."""
    if not np.array_equal(spot.target.spots.xy[-1], comparison.spots.xy[row]):
        return {}
    return dict(zip(comparison.panel.symbols, comparison.measured[row].tolist(), strict=True))


def compute_placement(session: ViewerSession, section: LoadedSection, slide: ViewerSlide) -> RegistrationCheck:
    """Which spots lie off the slide or its tissue; finds the tissue first."""
    from ...quality.placement import check_registration

    tissue = session.get_tissue(slide)
    mpp = None if slide.pixel_size is None else slide.mpp
    return check_registration(section.spots(), slide.slide.width, slide.slide.height, mpp, tissue)


def compare_section(
    session: ViewerSession, section: LoadedSection, slide: ViewerSlide, checkpoint: Checkpoint | None
) -> Iterator[object]:
    """Yields the Placement, the Pair, Stages and at last the Comparison, its table counted.

    Without a checkpoint only the Placement. Raises DkanError.
    """
    placement = compute_placement(session, section, slide)
    yield placement
    if checkpoint is None or slide.pixel_size is None:
        return
    # only now, as it takes torch, which loads beside a window in its own way with a checkpoint
    from ...inference.plain_ridge import predict_ridge
    from ...inference.predict import create_empty_prediction
    from ...inference.target import target_from_spots
    from ...quality.compare import compare_with_measured
    from ...training.measured import make_measured_section

    measured = make_measured_section(section.data, checkpoint)
    spots = measured.labeled_spots()
    if placement.warning and placement.off_slide[measured.labels.rows].any():
        raise SpotsError(f"{section.name}: {placement.warning}")
    target = target_from_spots(spots, slide.slide.width, slide.slide.height, section.name)
    predictor = session.get_predictor(slide, checkpoint)
    prediction, _ = create_empty_prediction(predictor, target, slide.pixel_size.origin)
    yield MeasuredPredictedPair(measured, prediction)
    what, drawn = f"Predicting at the {len(target):,} spots of {section.name}", time.perf_counter()
    for update in predictor.stream(target):
        prediction.apply_update(replace(update, gene_columns=None))
        fresh = update.stage == "spots" and time.perf_counter() - drawn > REDRAW_INTERVAL_S
        if fresh:
            drawn = time.perf_counter()
        yield ComparisonProgress(what, int(prediction.predicted_mask.sum()), len(target), fresh)
    yield ComparisonProgress("Comparing with the ridge baseline")
    ridge = predict_ridge(predictor, spots)
    yield ComparisonProgress("Counting the figures of every gene")
    comparison = compare_with_measured(checkpoint, measured, prediction, ridge)
    _ = comparison.metrics_per_gene, comparison.summary  # here, not in the window's thread
    yield comparison
