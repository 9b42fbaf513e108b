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
from ..session import OpenSlide, Session
from .section import LoadedSection

REDRAW_SECONDS = 2.0  # drawing maps of spots takes longer than predicting a batch of them

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...model import Checkpoint
    from ...quality.compare import Comparison
    from ...quality.placement import Placement
    from ...training.measured import Measured


@dataclass(frozen=True)
class Stage:
    """What is being done, how far it is, and whether the prediction has new values."""

    what: str
    done: int = 0
    total: int = 0
    grew: bool = False


@dataclass(frozen=True)
class Pair:
    """The labels of a section, and the prediction at its labelled spots as far as it is there."""

    measured: Measured
    prediction: Prediction

    def measured_gene(self, symbol: str) -> NDArray[np.float32]:
        """(N,) labels; NaN for a gene that the section does not measure."""
        if symbol not in self.measured.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.measured.labels.values[:, self.measured.panel.row(symbol)]

    def predicted_gene(self, symbol: str) -> NDArray[np.float32]:
        """(N,) predictions, NaN where there is none yet or the gene is not in the panel."""
        if symbol not in self.prediction.panel:
            return np.full(len(self.prediction.target), np.nan, np.float32)
        return self.prediction.gene(symbol)

    def row(self, row: int) -> int:
        """The row here that a row of the comparison is: that leaves out what cannot be read."""
        return int(np.flatnonzero(self.prediction.done)[row])

    def at(self, row: int) -> Prediction:
        """The prediction of one spot, by its row of the comparison."""
        return self.prediction.take(np.array([self.row(row)]))


def labels_at(comparison: Comparison, row: int, spot: Prediction) -> dict[str, float]:
    """By gene, the labels of a row, if that is where a clicked spot lies; else nothing."""
    if not np.array_equal(spot.target.spots.xy[-1], comparison.spots.xy[row]):
        return {}
    return dict(zip(comparison.panel.symbols, comparison.measured[row].tolist(), strict=True))


def placed(session: Session, section: LoadedSection, slide: OpenSlide) -> Placement:
    """Which spots lie off the slide or its tissue; finds the tissue first."""
    from ...quality.placement import place

    tissue = session.tissue_of(slide)
    mpp = None if slide.pixel_size is None else slide.mpp
    return place(section.spots(), slide.slide.width, slide.slide.height, mpp, tissue)


def comparing(
    session: Session, section: LoadedSection, slide: OpenSlide, checkpoint: Checkpoint | None
) -> Iterator[object]:
    """Yields the Placement, the Pair, Stages and at last the Comparison, its table counted.

    Without a checkpoint only the Placement. Raises DkanError.
    """
    placement = placed(session, section, slide)
    yield placement
    if checkpoint is None or slide.pixel_size is None:
        return
    # only now, as it takes torch, which loads beside a window in its own way with a checkpoint
    from ...inference.plain_ridge import ridge_of
    from ...inference.predict import empty_prediction
    from ...inference.target import spots_target
    from ...quality.compare import compare
    from ...training.measured import measured_section

    measured = measured_section(section.data, checkpoint)
    spots = measured.spots()
    if placement.warning and placement.off_slide[measured.labels.rows].any():
        raise SpotsError(f"{section.name}: {placement.warning}")
    target = spots_target(spots, slide.slide.width, slide.slide.height, section.name)
    predictor = session.predictor(slide, checkpoint)
    prediction, _ = empty_prediction(predictor, target, slide.pixel_size.origin)
    yield Pair(measured, prediction)
    what, drawn = f"Predicting at the {len(target):,} spots of {section.name}", time.perf_counter()
    for update in predictor.stream(target):
        prediction.fill(replace(update, genes=None))
        fresh = update.stage == "spots" and time.perf_counter() - drawn > REDRAW_SECONDS
        if fresh:
            drawn = time.perf_counter()
        yield Stage(what, int(prediction.done.sum()), len(target), fresh)
    yield Stage("Comparing with the ridge baseline")
    ridge = ridge_of(predictor, spots)
    yield Stage("Counting the figures of every gene")
    comparison = compare(checkpoint, measured, prediction, ridge)
    _ = comparison.table, comparison.summary  # here, not in the window's thread
    yield comparison
