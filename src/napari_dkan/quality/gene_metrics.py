"""Metrics of each gene and their summary: DKAN, ridge, and the held-out metrics of the card.

Everything is computed from arrays: predicted and measured (N, G) of the same spots and genes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..training.metrics import gene_pcc
from ..training.prediction_scores import PredictionScores, score_predictions
from .block_bootstrap import PccIntervals

MIN_SPOTS_FOR_PCC = 3

FloatArray = NDArray[np.floating]
DkanRidgePair = tuple[float | None, float | None]
_NAN = float("nan")


@dataclass(frozen=True)
class GeneMetrics:
    """Metrics of one gene over the spots of a section; NaN where one is not defined.

    Attributes
    ----------
    n_spots : int
        Number of spots.
    pcc, spearman : float
        Correlations of measured and predicted.
    low, high : float
        95 % interval of `pcc` from resampling blocks of 6 x 6 spots, since neighbours are not
        independent.
    mse, mean, variance, predicted_mean, predicted_variance : float
        On the label scale.
    zeros : float
        Share of spots without a count of the gene, before smoothing.
    ridge_pcc, ridge_spearman, ridge_mse : float
        Metrics of the ridge baseline on the same spots.
    expected_pcc, expected_ridge_pcc : float
        PCC on held-out sections, from the card of the checkpoint.
    """

    symbol: str
    n_spots: int
    pcc: float
    low: float
    high: float
    spearman: float
    mse: float
    mean: float
    variance: float
    predicted_mean: float
    predicted_variance: float
    zeros: float
    ridge_pcc: float = _NAN
    ridge_spearman: float = _NAN
    ridge_mse: float = _NAN
    expected_pcc: float = _NAN
    expected_ridge_pcc: float = _NAN


@dataclass(frozen=True)
class MethodMetrics:
    """Metrics of one method over all genes, as in `napari-dkan evaluate`; None where undefined.

    Attributes
    ----------
    pcc_all, pcc_hpg, pcc_heg, pcc_hvg : float or None
        Mean PCC over all genes, and over the 50 genes best predicted, of highest mean and of
        highest variance of the labels (all genes where there are fewer).
    n_genes : int
        Number of genes that have a correlation.
    """

    pcc_all: float | None = None
    pcc_hpg: float | None = None
    pcc_heg: float | None = None
    pcc_hvg: float | None = None
    mse: float | None = None
    n_genes: int = 0


@dataclass(frozen=True)
class ComparisonSummary:
    """All genes together: DKAN, ridge on the same spots, and what the card expects of both.

    Attributes
    ----------
    pcc_low, pcc_high : float
        95 % interval of the `pcc_all` of DKAN over resampled blocks of spots; NaN when there are
        too few blocks.
    n_better_than_ridge : int
        Number of genes on which the correlation of DKAN is higher.
    n_compared : int
        Number of genes on which both have a correlation.
    seen_in_training : bool
        Whether the checkpoint was trained on this slide.
    """

    n_spots: int
    n_genes: int
    dkan: MethodMetrics
    ridge: MethodMetrics | None
    card_dkan: MethodMetrics | None
    card_ridge: MethodMetrics | None
    pcc_low: float
    pcc_high: float
    n_better_than_ridge: int
    n_compared: int
    seen_in_training: bool

    def metrics_by_method(self) -> dict[str, MethodMetrics]:
        """Return the metrics that exist, by the displayed name of the method."""
        metrics_by_name = {
            "DKAN": self.dkan,
            "ridge": self.ridge,
            "DKAN, held-out sections (card)": self.card_dkan,
            "ridge, held-out sections (card)": self.card_ridge,
        }
        return {name: found for name, found in metrics_by_name.items() if found is not None}

    def format_verdict(self) -> str:
        """Return the verdict as one or two sentences."""
        over = f"{self.n_genes} gene{'s' * (self.n_genes != 1)} and {self.n_spots} spots"
        if self.dkan.pcc_all is None:
            return f"No gene has a correlation over {over}: measured or predicted is constant."
        text = f"PCC-ALL {self.dkan.pcc_all:.2f} "
        if np.isfinite(self.pcc_low):
            text += f"(95 % {self.pcc_low:.2f} to {self.pcc_high:.2f}) "
        text += f"over {over}"
        if self.ridge is not None and self.ridge.pcc_all is not None:
            text += (
                f"; ridge {self.ridge.pcc_all:.2f}, DKAN better on {self.n_better_than_ridge} of "
                f"{self.n_compared} genes"
            )
        if self.card_dkan is not None and self.card_dkan.pcc_all is not None:
            text += f"; the card expects {self.card_dkan.pcc_all:.2f}"
        if self.seen_in_training:
            text += ". This slide was trained on: no measure of quality"
        return text + "."


def compute_gene_metrics(
    symbols: Sequence[str],
    predicted: FloatArray,
    measured: FloatArray,
    zero_fraction: FloatArray,
    intervals: PccIntervals,
    ridge: FloatArray | None = None,
    held_out_pcc: Mapping[str, DkanRidgePair] | None = None,
) -> tuple[GeneMetrics, ...]:
    """Compute the metrics of each gene, in the order of `symbols`.

    Parameters
    ----------
    symbols : sequence of str
        The G genes.
    predicted, measured : (N, G) arrays
        Values at the same spots on the label scale.
    zero_fraction : (G,) array
        Share of spots without a count of each gene.
    intervals : PccIntervals
        Intervals of the correlations.
    ridge : (N, G) array, optional
        Prediction of the ridge baseline.
    held_out_pcc : mapping, optional
        By gene, PCC of (DKAN, ridge) on held-out sections.
    """
    measured64, predicted64 = np.asarray(measured, float), np.asarray(predicted, float)
    undefined = np.full(len(symbols), _NAN)
    ridge_columns = undefined, undefined, undefined
    if ridge is not None:
        ridge_columns = (
            gene_pcc(ridge, measured64),
            _spearman_per_gene(ridge, measured64),
            ((ridge - measured64) ** 2).mean(axis=0),
        )
    columns = (
        gene_pcc(predicted, measured),
        intervals.low,
        intervals.high,
        _spearman_per_gene(predicted64, measured64),
        ((predicted64 - measured64) ** 2).mean(axis=0),
        measured64.mean(axis=0),
        measured64.var(axis=0),
        predicted64.mean(axis=0),
        predicted64.var(axis=0),
        zero_fraction,
        *ridge_columns,
        _held_out_column(symbols, held_out_pcc, 0),
        _held_out_column(symbols, held_out_pcc, 1),
    )
    rows = np.stack([np.asarray(column, float) for column in columns], axis=1).tolist()
    return tuple(
        GeneMetrics(symbol, len(measured), *row) for symbol, row in zip(symbols, rows, strict=True)
    )


def summarize_comparison(
    symbols: Sequence[str],
    predicted: FloatArray,
    measured: FloatArray,
    intervals: PccIntervals,
    ridge: FloatArray | None = None,
    held_out_pcc: Mapping[str, DkanRidgePair] | None = None,
    held_out_mse: DkanRidgePair = (None, None),
    seen_in_training: bool = False,
) -> ComparisonSummary:
    """Summarize all genes with the code of `napari-dkan evaluate`.

    Parameters are those of `compute_gene_metrics`, and `held_out_mse`, the MSE of (DKAN, ridge)
    on held-out sections.
    """
    labels = {"section": measured}
    dkan = score_predictions({"section": predicted}, labels)
    ridge_scores = None if ridge is None else score_predictions({"section": ridge}, labels)
    dkan_pcc = dkan.pcc_per_gene
    ridge_pcc = np.full(len(dkan_pcc), _NAN) if ridge_scores is None else ridge_scores.pcc_per_gene
    both = np.isfinite(dkan_pcc) & np.isfinite(ridge_pcc)
    card_dkan, card_ridge = (
        _metrics_from_card(_held_out_column(symbols, held_out_pcc, column), mse, dkan)
        for column, mse in enumerate(held_out_mse)
    )
    return ComparisonSummary(
        n_spots=len(measured),
        n_genes=len(symbols),
        dkan=_to_method_metrics(dkan),
        ridge=None if ridge_scores is None else _to_method_metrics(ridge_scores),
        card_dkan=card_dkan,
        card_ridge=card_ridge,
        pcc_low=intervals.mean_low,
        pcc_high=intervals.mean_high,
        n_better_than_ridge=int((dkan_pcc[both] > ridge_pcc[both]).sum()),
        n_compared=int(both.sum()),
        seen_in_training=seen_in_training,
    )


def _spearman_per_gene(predicted: FloatArray, measured: FloatArray) -> NDArray[np.float64]:
    """Rank correlation (G,) of each gene; ties share their mean rank."""
    from scipy.stats import rankdata

    return gene_pcc(rankdata(predicted, axis=0), rankdata(measured, axis=0))


def _held_out_column(
    symbols: Sequence[str], held_out_pcc: Mapping[str, DkanRidgePair] | None, column: int
) -> NDArray[np.float64]:
    """PCC (G,) that the card states: column 0 of DKAN, 1 of ridge; NaN where it states none."""
    known = held_out_pcc or {}
    return np.array([known.get(symbol, (None, None))[column] for symbol in symbols], float)


def _to_method_metrics(scores: PredictionScores) -> MethodMetrics:
    found = scores.to_summary()
    return MethodMetrics(
        found["pcc_all"],
        found["pcc_hpg"],
        found["pcc_heg"],
        found["pcc_hvg"],
        found["mse"],
        scores.pcc.shape[1] - found["genes_without_pcc"],
    )


def _metrics_from_card(
    pcc: NDArray[np.float64], mse: float | None, scores: PredictionScores
) -> MethodMetrics | None:
    """The card's metrics over the genes of this section, with the HEG and HVG of this section."""
    if np.isnan(pcc).all():
        return None
    errors = np.array([mse], float)
    same_genes = PredictionScores(
        ("card",), pcc[None], errors, errors * _NAN, scores.heg, scores.hvg
    )
    return _to_method_metrics(same_genes)
