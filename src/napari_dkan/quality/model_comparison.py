"""Compare the predictions of two checkpoints on one slide, gene by gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..expression.panel import Panel
from ..spatial.spots import have_same_positions
from ..training.depth_metrics import depth_partial_pcc
from ..training.depth_reference import DepthReference
from ..training.metrics import gene_pcc
from .gene_metrics import MIN_SPOTS_FOR_PCC

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..training.data.measured_section import MeasuredSection
    from .comparison import Comparison


FloatArray = NDArray[np.floating]

_PCC_TIE = 0.005  # PCC that differ by less show no preference


@dataclass(frozen=True)
class GeneModelComparison:
    """One gene under both checkpoints; NaN where undefined.

    Attributes
    ----------
    map_correlation : float
        Correlation of the two maps.
    mean_abs_difference : float
        Mean absolute difference of the two maps.
    pcc_a, pcc_b : float
        Depth-partial PCC with the measured labels, NaN without them.
    preferred_model : str
        "first", "second", or "" for neither, also where the gene cannot be judged.
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

    Attributes
    ----------
    panel : Panel
        The G genes that both predict.
    spot_rows : (N,) array
        Rows of the spots that both predict.
    values_a, values_b : (N, G) arrays
        The predicted values.
    titles : tuple of str
        Titles of the two checkpoints.
    has_same_label_scale : bool
        Whether both are on one label scale; else their difference has no meaning.
    gene_comparisons : tuple of GeneModelComparison
        One row per gene.
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
        """Second minus first, (N, G)."""
        return self.values_b - self.values_a

    def format_verdict(self) -> str:
        """Return the verdict as one sentence."""
        known = [g for g in self.gene_comparisons if g.map_correlation == g.map_correlation]
        mean = f"{np.mean([g.map_correlation for g in known]):.2f}" if known else "undefined"
        verdict = f"The two maps of a gene correlate by {mean} on average over {len(known)} genes"
        measured = [g for g in self.gene_comparisons if g.pcc_a == g.pcc_a and g.pcc_b == g.pcc_b]
        if measured:
            pcc_a, pcc_b = np.mean([(g.pcc_a, g.pcc_b) for g in measured], axis=0)
            preferences = [g.preferred_model for g in measured]
            first, second = self.titles
            verdict += (
                f"; the measured data prefers {first} on {preferences.count('first')} genes and "
                f"{second} on {preferences.count('second')} of {len(measured)} "
                f"(depth-partial PCC {pcc_a:.2f} and {pcc_b:.2f})"
            )
        if not self.has_same_label_scale:
            verdict += "; they are on different label scales, so compare their patterns only"
        return verdict + "."


def compare_models(
    a: Prediction, b: Prediction, measured: Comparison | MeasuredSection | None = None
) -> ModelComparison:
    """Compare two predictions gene by gene.

    Parameters
    ----------
    measured : Comparison or MeasuredSection, optional
        Labels of the same slide. They are compared at spots that are also predicted, and by
        correlation only, since labels are on the scale of one checkpoint.

    Raises
    ------
    SpotsError
        If the predictions are of different spots or slides, or share no gene or spot.
    """
    spots_a, spots_b = a.target.spots, b.target.spots
    slides = [p.provenance.get("slide_fingerprint") for p in (a, b)]
    if all(slides) and slides[0] != slides[1]:
        raise SpotsError("The two predictions are of different slides; predict both on one.")
    if not have_same_positions(spots_a, spots_b):
        raise SpotsError(
            f"The two predictions are of different spots ({len(spots_a)} and {len(spots_b)}); "
            "predict both at the same places."
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
    pcc_a, pcc_b, is_judged = _pcc_with_measured(panel, spots_a.xy[rows], first, second, measured)
    correlation, difference = gene_pcc(first, second), np.abs(second - first).mean(axis=0)
    columns = (v.tolist() for v in (correlation, difference, pcc_a, pcc_b, is_judged))
    genes = tuple(
        GeneModelComparison(
            symbol,
            r,
            mean_difference,
            a_pcc,
            b_pcc,
            _choose_preferred(a_pcc, b_pcc) if judged else "",
        )
        for symbol, r, mean_difference, a_pcc, b_pcc, judged in zip(
            panel.symbols, *columns, strict=True
        )
    )
    same_scale = a.label_scale == b.label_scale
    return ModelComparison(panel, rows, first, second, (titles[0], titles[1]), same_scale, genes)


def _pcc_with_measured(
    panel: Panel,
    xy: FloatArray,
    first: FloatArray,
    second: FloatArray,
    measured: Comparison | MeasuredSection | None,
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Depth-partial PCC (G,) of both with the labels, and which genes can be judged.

    The PCC is NaN where a gene is not measured or at too few spots. Without known counts it is
    the plain one.
    """
    from scipy.spatial import cKDTree

    pcc, is_judged = np.full((2, len(panel)), np.nan), np.ones(len(panel), bool)
    if measured is None:
        return pcc[0], pcc[1], is_judged
    measured_xy, labels, reference = _measured_labels(measured)
    distance, nearest = cKDTree(xy).query(measured_xy)
    is_predicted = distance <= 1.0
    both = [i for i, symbol in enumerate(panel.symbols) if symbol in measured.panel]
    if is_predicted.sum() < MIN_SPOTS_FOR_PCC or not both:
        return pcc[0], pcc[1], is_judged
    columns = [measured.panel.row(panel.symbols[i]) for i in both]
    if reference is not None:
        is_judged[both] = reference.ceiling.is_judged[columns]
    for row, values in zip(pcc, (first, second), strict=True):
        predicted = values[nearest[is_predicted]][:, both]
        wanted = labels[is_predicted][:, columns]
        if reference is None:
            row[both] = gene_pcc(predicted, wanted)
        else:
            row[both] = depth_partial_pcc(predicted, wanted, reference.depth[is_predicted])
    return pcc[0], pcc[1], is_judged


def _measured_labels(
    measured: Comparison | MeasuredSection,
) -> tuple[FloatArray, FloatArray, DepthReference | None]:
    """Spot centres (N, 2), labels (N, G), and the counts behind them."""
    from ..training.data.measured_section import MeasuredSection

    if isinstance(measured, MeasuredSection):
        labels = measured.labels
        return measured.labeled_spots().xy, labels.values, DepthReference(labels.counts)
    return measured.spots.xy, measured.measured, measured.reference


def _choose_preferred(pcc_a: float, pcc_b: float) -> str:
    if not abs(pcc_a - pcc_b) > _PCC_TIE:
        return ""
    return "first" if pcc_a > pcc_b else "second"
