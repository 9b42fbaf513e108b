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

from .....errors import FewGenesError, SpotsError
from ....session.slide_images import GLASS_ADVICE
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
FIRST_SAMPLE = 32  # spots of the first early figures; the next samples are twice as large
SAMPLE_SEED = 2021
MIN_REMAINING_S = 2.0  # of prediction, else early figures would be replaced before they are read


@dataclass(frozen=True)
class ComparisonProgress:
    """What is being done, how far it is, and whether there are new values to draw."""

    description: str
    done: int = 0
    total: int = 0
    has_new_values: bool = False


@dataclass(frozen=True)
class MeasuredPredictedPair:
    """Labels of a section and the prediction at its labelled spots, which may be incomplete.

    Attributes
    ----------
    measured : MeasuredSection
        Labels of N spots.
    prediction : Prediction
        At the same N spots; NaN where nothing is predicted yet.
    """

    measured: MeasuredSection
    prediction: Prediction

    def measured_values(self, symbol: str) -> NDArray[np.float32]:
        """Return the labels (N,); NaN for a gene that the section does not measure."""
        if symbol not in self.measured.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.measured.labels.values[:, self.measured.panel.row(symbol)]

    def predicted_values(self, symbol: str) -> NDArray[np.float32]:
        """Return the predictions (N,); NaN where there is none or for a gene not in the panel."""
        if symbol not in self.prediction.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.prediction.get_gene_values(symbol)

    def prediction_row(self, comparison_row: int) -> int:
        """Convert a row of the comparison, which leaves out spots that cannot be read."""
        return int(np.flatnonzero(self.prediction.predicted_mask)[comparison_row])

    def prediction_at(self, comparison_row: int) -> Prediction:
        """Return the prediction of one spot, by its row of the comparison."""
        return self.prediction.take(np.array([self.prediction_row(comparison_row)]))


@dataclass(frozen=True)
class EarlyComparison:
    """The comparison of a random sample of spots, while the others are still predicted.

    It is shown in the panel, with the number of its spots, and never saved.

    Attributes
    ----------
    comparison : Comparison
        Of the sample only.
    n_spots : int
        Labelled spots of the section.
    """

    comparison: Comparison
    n_spots: int


class SpotSamples:
    """Random samples of the spots of a target, which are predicted before the other spots.

    Each sample contains the one before it and is twice as large. The order is that of a seeded
    permutation, so that no part of the section is judged before the rest of it.

    Parameters
    ----------
    zones : (N, 2) array
        Zone of the context windows of each spot; within a sample one zone follows another.
    """

    def __init__(self, zones: NDArray[np.int64]) -> None:
        count = len(zones)
        shuffled = np.random.default_rng(SAMPLE_SEED).permutation(count)
        sizes: list[int] = []
        while (size := FIRST_SAMPLE * 2 ** len(sizes)) < count:
            sizes.append(size)
        parts = [np.sort(part) for part in np.split(shuffled, sizes)]
        self.order: NDArray[np.int64] = np.concatenate(
            [part[np.lexsort(zones[part].T)] for part in parts]
        )
        self._due = [np.sort(shuffled[:size]) for size in sizes]

    def pop_finished(self, is_done: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        """Return the rows (M,) of the largest sample that is done, once, else None."""
        finished = None
        while self._due and is_done[self._due[0]].all():
            finished = self._due.pop(0)
        return finished


def measured_labels_at(comparison: Comparison, row: int, spot: Prediction) -> dict[str, float]:
    """Return the labels of a row by gene, if the clicked spot is that row, else nothing."""
    if not np.array_equal(spot.target.spots.xy[-1], comparison.spots.xy[row]):
        return {}
    return dict(zip(comparison.panel.symbols, comparison.measured[row].tolist(), strict=True))


def compute_placement(
    session: ViewerSession, section: LoadedSection, slide: ViewerSlide
) -> RegistrationCheck:
    """Check which spots are off the slide or its tissue; the tissue is found first."""
    from .....quality.registration_check import check_registration

    tissue = session.predictors.get_tissue(slide)
    mpp = None if slide.pixel_size is None else slide.mpp
    spots, area = section.spots(), slide.slide.scan_area
    check = check_registration(spots, slide.slide.width, slide.slide.height, mpp, tissue)
    if not check.off_slide.any() or not area.fits_from_glass(spots.xy):
        return check
    outside = f"{int(check.off_slide.sum())} of {len(spots)} spots lie off the slide"
    advice = f"they fit if they count from the corner of the glass: {GLASS_ADVICE}"
    return replace(check, warning=f"{outside}; {advice}, and load the section again.")


def compare_section(
    session: ViewerSession,
    section: LoadedSection,
    slide: ViewerSlide,
    checkpoint: Checkpoint | None,
) -> Iterator[object]:
    """Compare a section with the prediction at its spots.

    Yields
    ------
    RegistrationCheck, MeasuredPredictedPair, ComparisonProgress, EarlyComparison, Comparison
        In this order, with many `ComparisonProgress` and an `EarlyComparison` for every sample of
        spots that is predicted long before the others; without a checkpoint or a pixel size only
        the first. The metrics of the comparisons are computed.

    Raises
    ------
    DkanError
    """
    placement = compute_placement(session, section, slide)
    yield placement
    if checkpoint is None or slide.pixel_size is None:
        return
    # Imported here because it imports torch, which a window loads in its own way first.
    from .....inference.predict import create_empty_prediction, predict_ridge
    from .....inference.target import target_from_spots
    from .....quality.comparison import compare_with_measured
    from .....quality.gene_metrics import MIN_SPOTS_FOR_PCC
    from .....training.data.measured_section import make_measured_section

    measured = make_measured_section(section.data, checkpoint, section.accepts_few_genes)
    spots = measured.labeled_spots()
    if placement.warning and placement.off_slide[measured.labels.rows].any():
        raise SpotsError(f"{section.name}: {placement.warning}")
    target = target_from_spots(spots, slide.slide.width, slide.slide.height, section.name)
    predictor = session.predictors.get(slide, checkpoint)
    prediction, _ = create_empty_prediction(predictor, target, slide.pixel_size.origin)
    yield MeasuredPredictedPair(measured, prediction)
    description = f"Predicting at the {len(target):,} spots of {section.name}"

    def compare(rows: NDArray[np.int64]) -> Comparison:
        """Compare these of the labelled spots and compute the metrics, not in the GUI thread."""
        ridge = predict_ridge(predictor.prediction_context, spots.take(rows))
        if ridge is not None:
            values = np.full((len(spots), ridge.shape[1]), np.nan, np.float32)
            values[rows], ridge = ridge, values
        comparison = compare_with_measured(checkpoint, measured, prediction, ridge, rows=rows)
        _ = comparison.metrics_per_gene, comparison.summary
        return comparison

    samples = SpotSamples(predictor.global_context.find_zones(target))
    start = last_drawn = time.perf_counter()
    for update in predictor.stream(target, samples.order):
        prediction.apply_update(replace(update, gene_columns=None))
        now, is_predicted = time.perf_counter(), prediction.predicted_mask
        is_due = now - last_drawn > REDRAW_INTERVAL_S
        has_new_values = update.stage == "spots" and is_due
        if has_new_values:
            last_drawn = now
        done = int(is_predicted.sum())
        yield ComparisonProgress(description, done, len(target), has_new_values)
        sample = samples.pop_finished(is_predicted | prediction.failed_mask)
        if sample is None or is_predicted[sample].sum() < MIN_SPOTS_FOR_PCC:
            continue
        if (now - start) / done * (len(target) - done) >= MIN_REMAINING_S:
            yield EarlyComparison(compare(sample), len(target))
    yield ComparisonProgress("Comparing with the measured values")
    yield compare(np.arange(len(spots)))


@dataclass(frozen=True, eq=False)
class _ComparisonInputs:
    """What a comparison depends on; when any of it changes, it is computed again."""

    section: LoadedSection
    data: AnnData  # replaced by every registration
    sha256: str
    mpp: float
    accepts_few_genes: bool

    def is_same(self, other: _ComparisonInputs | None) -> bool:
        if other is None or self.section is not other.section or self.data is not other.data:
            return False
        mine, others = (
            (inputs.sha256, inputs.mpp, inputs.accepts_few_genes) for inputs in (self, other)
        )
        return mine == others


class ComparisonWorker:
    """Compares one section at a time in a worker thread.

    Parameters
    ----------
    session
    on_item
        Called with what `compare_section` yields, without progress that has no new values, and
        with a FewGenesError that ended it.
    on_progress
        Called with what is being done, done and total.
    """

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
        """Return whether this section is compared, or being compared, with its current inputs."""
        inputs = self._inputs_for(section)
        return inputs is not None and inputs.is_same(self._inputs)

    def start(self, section: LoadedSection) -> None:
        """Compare a section; a running comparison is cancelled."""
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
        """Cancel the job and forget what was compared."""
        self._inputs = None
        if self._runner.busy:
            self._runner.cancel()
            self._on_progress("", 0, 0)

    def close(self) -> None:
        self._runner.close()

    def _inputs_for(self, section: LoadedSection) -> _ComparisonInputs | None:
        checkpoint, slide = self._session.checkpoint, section.slide
        if slide is None:
            return None
        checksum = "" if checkpoint is None else checkpoint.sha256
        return _ComparisonInputs(
            section, section.data, checksum, slide.mpp, section.accepts_few_genes
        )

    def _handle_item(self, item: object) -> None:
        if isinstance(item, ComparisonProgress):
            self._on_progress(item.description, item.done, item.total)
            if not item.has_new_values:
                return
        self._on_item(item)

    def _handle_end(self, failure: JobFailure | None) -> None:
        if failure is not None and isinstance(failure.error, FewGenesError):
            self._on_item(failure.error)
        elif failure is not None:
            self._session.message.show(failure.message, warning=True)
        self._on_progress("", 0, 0)
