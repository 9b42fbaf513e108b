"""Compare a measured section with the prediction at its spots, in a worker thread.

The path is the one of ``napari-dkan evaluate``: labels on the scale of the checkpoint and the
labelled spots as an array target. The results are therefore the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .....errors import SpotsError
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession
from ....worker import JobFailure, JobRunner
from .loaded_section import LoadedSection

if TYPE_CHECKING:
    from anndata import AnnData

    from .....inference.prediction import Prediction
    from .....model import Checkpoint
    from .....quality.comparison import Comparison
    from .....quality.registration_check import RegistrationCheck
    from .....training.data.measured_section import MeasuredSection


REDRAW_INTERVAL_S = 2.0  # drawing maps of spots takes longer than predicting a batch of them


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


def compute_placement(
    session: ViewerSession, section: LoadedSection, slide: ViewerSlide
) -> RegistrationCheck:
    """Which spots lie off the slide or its tissue; finds the tissue first."""
    from .....quality.registration_check import check_registration

    tissue = session.predictors.get_tissue(slide)
    mpp = None if slide.pixel_size is None else slide.mpp
    return check_registration(section.spots(), slide.slide.width, slide.slide.height, mpp, tissue)


def compare_section(
    session: ViewerSession,
    section: LoadedSection,
    slide: ViewerSlide,
    checkpoint: Checkpoint | None,
) -> Iterator[object]:
    """Yields the Placement, the Pair, Stages and at last the Comparison, its table counted.

    Without a checkpoint only the Placement. Raises DkanError.
    """
    placement = compute_placement(session, section, slide)
    yield placement
    if checkpoint is None or slide.pixel_size is None:
        return
    # only now, as it takes torch, which loads beside a window in its own way with a checkpoint
    from .....inference.predict import create_empty_prediction, predict_ridge
    from .....inference.target import target_from_spots
    from .....quality.comparison import compare_with_measured
    from .....training.data.measured_section import make_measured_section

    measured = make_measured_section(section.data, checkpoint)
    spots = measured.labeled_spots()
    if placement.warning and placement.off_slide[measured.labels.rows].any():
        raise SpotsError(f"{section.name}: {placement.warning}")
    target = target_from_spots(spots, slide.slide.width, slide.slide.height, section.name)
    predictor = session.predictors.get(slide, checkpoint)
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
    ridge = predict_ridge(predictor.prediction_context, spots)
    yield ComparisonProgress("Counting the figures of every gene")
    comparison = compare_with_measured(checkpoint, measured, prediction, ridge)
    _ = comparison.metrics_per_gene, comparison.summary  # here, not in the window's thread
    yield comparison


@dataclass(frozen=True, eq=False)
class _ComparisonInputs:
    """What is compared with what; when any of it changes, it is compared anew."""

    section: LoadedSection
    data: AnnData  # another one after every registration
    sha256: str
    mpp: float

    def is_same(self, other: _ComparisonInputs | None) -> bool:
        if other is None or self.section is not other.section or self.data is not other.data:
            return False
        return (self.sha256, self.mpp) == (other.sha256, other.mpp)


class ComparisonWorker:
    """receive : gets a Placement, a Pair, Stages whose values grew, the Comparison, as
    `comparing` yields them. tell : what is being done, how far and of how much."""

    def __init__(
        self,
        session: ViewerSession,
        on_item: Callable[[Any], None],
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._session, self._on_item, self._on_progress = session, on_item, on_progress
        self._runner = JobRunner("comparison")
        self._inputs: _ComparisonInputs | None = None

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def is_up_to_date(self, section: LoadedSection) -> bool:
        """Whether this section is compared, or being compared, as things stand."""
        work = self._inputs_for(section)
        return work is not None and work.is_same(self._inputs)

    def start(self, section: LoadedSection) -> None:
        """Compare it; what was running ends."""
        session, slide, checkpoint = self._session, section.slide, self._session.checkpoint
        if slide is None:
            return
        self._inputs = self._inputs_for(section)
        self._runner.start(
            lambda: compare_section(session, section, slide, checkpoint),
            self._handle_item,
            self._handle_end,
        )
        self._on_progress("Looking for the tissue", 0, 0)

    def reset(self) -> None:
        """End the job; nothing counts as compared."""
        self._inputs = None
        if self._runner.busy:
            self._runner.cancel()
            self._on_progress("", 0, 0)

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

    def _inputs_for(self, section: LoadedSection) -> _ComparisonInputs | None:
        checkpoint, slide = self._session.checkpoint, section.slide
        if slide is None:
            return None
        checksum = "" if checkpoint is None else checkpoint.sha256
        return _ComparisonInputs(section, section.data, checksum, slide.mpp)

    def _handle_item(self, item: object) -> None:
        if isinstance(item, ComparisonProgress):
            self._on_progress(item.description, item.done, item.total)
            if not item.has_new_values:
                return
        self._on_item(item)

    def _handle_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
        self._on_progress("", 0, 0)
