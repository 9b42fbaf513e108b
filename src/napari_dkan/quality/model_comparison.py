"""Compare the predictions of two checkpoints on one slide, gene by gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..expression.panel import Panel
from ..training.metrics import gene_pcc

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..training.data.measured_section import MeasuredSection
    from .comparison import Comparison


FloatArray = NDArray[np.floating]

_MIN_SPOTS = 3
_PCC_TIE = 0.005  # of a PCC; less is no preference


@dataclass(frozen=True)
class GeneModelComparison:
    """One gene under both checkpoints; NaN where undefined.

    agreement : correlation of the two maps. difference : mean absolute difference.
    pcc_a, pcc_b : with the measured labels, NaN without them.
    prefers : "first", "second", or "" for neither.
    """

    symbol: str
    map_correlation: float
    mean_abs_difference: float
    pcc_a: float
    pcc_b: float
    preferred_model: str


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """Two predictions at the same spots.

    panel : the G genes that both predict. rows : (N,) of the spots that both predict.
    a, b : (N, G) their values. titles : of the two checkpoints.
    same_scale : whether both are on one label scale; else their difference means nothing.
    genes : one row per gene.
    """

    panel: Panel
    spot_rows: NDArray[np.int64]
    values_a: NDArray[np.float32]
    values_b: NDArray[np.float32]
    titles: tuple[str, str]
    has_same_label_scale: bool
    gene_comparisons: tuple[GeneModelComparison, ...]

    @property
    def difference(self) -> NDArray[np.float32]:
        """(N, G) second minus first."""
        return self.values_b - self.values_a

    def format_verdict(self) -> str:
        """A plain verdict."""
        known = [g for g in self.gene_comparisons if g.map_correlation == g.map_correlation]
        mean = f"{np.mean([g.map_correlation for g in known]):.2f}" if known else "undefined"
        said = f"The two maps of a gene correlate by {mean} on average over {len(known)} genes"
        measured = [g for g in self.gene_comparisons if g.pcc_a == g.pcc_a and g.pcc_b == g.pcc_b]
        if measured:
            pcc_a, pcc_b = np.mean([(g.pcc_a, g.pcc_b) for g in measured], axis=0)
            votes = [g.preferred_model for g in measured]
            first, second = self.titles
            said += (
                f"; the measured data prefers {first} on {votes.count('first')} genes and {second} "
                f"on {votes.count('second')} of {len(measured)} (PCC {pcc_a:.2f} and {pcc_b:.2f})"
            )
        if not self.has_same_label_scale:
            said += "; they are on different label scales, so compare their patterns only"
        return said + "."


def compare_models(
    a: Prediction, b: Prediction, measured: Comparison | MeasuredSection | None = None
) -> ModelComparison:
    """Set two predictions side by side, gene by gene.

    measured : the section measured there, where it is loaded; judged where its spots are also
        predicted, by correlation alone, since labels are on the scale of one checkpoint only.

    Raises SpotsError when they are of other spots or slides, or share no gene or spot.
    """
    xy, others = a.target.spots.xy, b.target.spots.xy
    slides = [p.provenance.get("slide_fingerprint") for p in (a, b)]
    if all(slides) and slides[0] != slides[1]:
        raise SpotsError("The two predictions are of different slides; predict both on one.")
    if xy.shape != others.shape or not np.allclose(xy, others, rtol=0, atol=1.0):
        raise SpotsError(
            f"The two predictions are of different spots ({len(xy)} and {len(others)}); predict "
            "both at the same places."
        )
    titles = tuple(str(p.provenance.get("checkpoint") or "untitled") for p in (a, b))
    if titles[0] == titles[1]:
        titles = f"{titles[0]} (first)", f"{titles[1]} (second)"
    panel = Panel(tuple(g for g in a.panel.genes if g.symbol in b.panel))
    if not len(panel):
        raise SpotsError(f"{titles[0]} and {titles[1]} have no gene in common.")
    rows = np.flatnonzero(a.predicted_mask & b.predicted_mask)
    if not len(rows):
        raise SpotsError("No spot is predicted by both checkpoints yet.")
    first, second = (p.values[rows][:, [p.panel.row(s) for s in panel.symbols]] for p in (a, b))
    pcc_a, pcc_b = _pcc_with_measured(panel, xy[rows], first, second, measured)
    alike, apart = gene_pcc(first, second), np.abs(second - first).mean(axis=0)
    rows_of = zip(*(c.tolist() for c in (alike, apart, pcc_a, pcc_b)), strict=True)
    genes = tuple(
        GeneModelComparison(symbol, one, other, pa, pb, _choose_preferred(pa, pb))
        for symbol, (one, other, pa, pb) in zip(panel.symbols, rows_of, strict=True)
    )
    same = a.label_scale == b.label_scale
    return ModelComparison(panel, rows, first, second, (titles[0], titles[1]), same, genes)


def _pcc_with_measured(
    panel: Panel,
    xy: FloatArray,
    first: FloatArray,
    second: FloatArray,
    measured: Comparison | MeasuredSection | None,
) -> tuple[FloatArray, FloatArray]:
    """PCC of both with the labels, (G,) each, NaN where a gene or too few spots are measured."""
    from scipy.spatial import cKDTree

    pcc = np.full((2, len(panel)), np.nan)
    if measured is None:
        return pcc[0], pcc[1]
    where, labels = _measured_labels(measured)
    distance, nearest = cKDTree(xy).query(where)
    there = distance <= 1.0
    both = [i for i, symbol in enumerate(panel.symbols) if symbol in measured.panel]
    if there.sum() < _MIN_SPOTS or not both:
        return pcc[0], pcc[1]
    columns = [measured.panel.row(panel.symbols[i]) for i in both]
    for row, values in zip(pcc, (first, second), strict=True):
        row[both] = gene_pcc(values[nearest[there]][:, both], labels[there][:, columns])
    return pcc[0], pcc[1]


def _measured_labels(measured: Comparison | MeasuredSection) -> tuple[FloatArray, FloatArray]:
    """Spot centres (N, 2) and labels (N, G)."""
    from ..training.data.measured_section import MeasuredSection

    if isinstance(measured, MeasuredSection):
        return measured.labeled_spots().xy, measured.labels.values
    return measured.spots.xy, measured.measured


def _choose_preferred(pcc_a: float, pcc_b: float) -> str:
    if not abs(pcc_a - pcc_b) > _PCC_TIE:
        return ""
    return "first" if pcc_a > pcc_b else "second"
