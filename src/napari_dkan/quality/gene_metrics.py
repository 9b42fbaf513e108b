"""Metrics of each gene: DKAN, ridge, and the held-out metrics of the card.

Everything is computed from arrays: predicted and measured (N, G) of the same spots and genes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..training.block_bootstrap import PccIntervals
from ..training.depth_reference import DepthReference
from ..training.metrics import gene_pcc

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
    partial, partial_low, partial_high : float
        Depth-partial PCC, with its interval.
    ridge_partial : float
        Depth-partial PCC of the ridge baseline.
    ceiling : float
        Depth-partial PCC that a perfect prediction could reach, given the counting noise.
    expected_partial, expected_ridge_partial : float
        Depth-partial PCC on held-out sections, from the card.
    is_judged : bool
        False where the counts of the gene are too few here to tell a good prediction from a bad
        one.
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
    partial: float = _NAN
    partial_low: float = _NAN
    partial_high: float = _NAN
    ridge_partial: float = _NAN
    ceiling: float = _NAN
    expected_partial: float = _NAN
    expected_ridge_partial: float = _NAN
    is_judged: bool = True


@dataclass(frozen=True, eq=False)
class BesideDepth:
    """What metrics beside depth are computed from.

    Attributes
    ----------
    reference : DepthReference
        Counts behind the labels.
    intervals : PccIntervals
        Intervals of the depth-partial correlations.
    held_out_partial : mapping
        By gene, depth-partial PCC of (DKAN, ridge) on held-out sections; {} where the card does
        not record it.
    """

    reference: DepthReference
    intervals: PccIntervals
    held_out_partial: Mapping[str, DkanRidgePair]


def compute_gene_metrics(
    symbols: Sequence[str],
    predicted: FloatArray,
    measured: FloatArray,
    zero_fraction: FloatArray,
    intervals: PccIntervals,
    ridge: FloatArray | None = None,
    held_out_pcc: Mapping[str, DkanRidgePair] | None = None,
    beside_depth: BesideDepth | None = None,
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
    beside_depth : BesideDepth, optional
        Counts and intervals of the metrics beside depth; None leaves them NaN.
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
        held_out_column(symbols, held_out_pcc, 0),
        held_out_column(symbols, held_out_pcc, 1),
    )
    is_judged = np.ones(len(symbols), bool)
    if beside_depth is not None:
        reference, depth_intervals = beside_depth.reference, beside_depth.intervals
        is_judged = reference.ceiling.is_judged
        columns = (
            *columns,
            reference.partial_pcc(predicted64, measured64),
            depth_intervals.low,
            depth_intervals.high,
            undefined if ridge is None else reference.partial_pcc(ridge, measured64),
            reference.ceiling.values,
            *(held_out_column(symbols, beside_depth.held_out_partial, i) for i in (0, 1)),
        )
    rows = np.stack([np.asarray(column, float) for column in columns], axis=1).tolist()
    return tuple(
        replace(GeneMetrics(symbol, len(measured), *row), is_judged=judged)
        for symbol, row, judged in zip(symbols, rows, is_judged.tolist(), strict=True)
    )


def _spearman_per_gene(predicted: FloatArray, measured: FloatArray) -> NDArray[np.float64]:
    """Rank correlation (G,) of each gene; ties share their mean rank."""
    import pandas as pd  # there already, unlike scipy.stats, which takes a second to import

    predicted_ranks, measured_ranks = (
        pd.DataFrame(values).rank().to_numpy() for values in (predicted, measured)
    )
    return gene_pcc(predicted_ranks, measured_ranks)


def held_out_column(
    symbols: Sequence[str], held_out_pcc: Mapping[str, DkanRidgePair] | None, column: int
) -> NDArray[np.float64]:
    """PCC (G,) that the card states: column 0 of DKAN, 1 of ridge; NaN where it states none."""
    known = held_out_pcc or {}
    return np.array([known.get(symbol, (None, None))[column] for symbol in symbols], float)
