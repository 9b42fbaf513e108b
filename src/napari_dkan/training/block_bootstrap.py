"""Confidence intervals of correlations by a spatial block bootstrap.

Spots are not independent: neighbours share tissue, and labels are smoothed over neighbours. Whole
blocks of spots are therefore resampled (Künsch, Annals of Statistics 17, 1217, 1989; Lahiri,
Resampling Methods for Dependent Data, Springer, 2003, chapter 12). The spread of the resampled
correlations on Fisher's z scale is widened by Student's t for the number of blocks: a section has
about ten, and plain percentile intervals are too narrow (benchmarks/intervals.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spatial.spots import Spots, median_spot_distance
from .depth_metrics import is_explained_by_depth, regress_out_depth
from .metrics import gene_pcc

BLOCK_SIDE_PITCHES = 6  # intervals of smaller blocks contain the true value less often
N_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_SEED = 2021
_MAX_ABS_PCC = 1 - 1e-6
MIN_BLOCKS = 4


@dataclass(frozen=True)
class PccIntervals:
    """95 % intervals of correlations; NaN with fewer than four blocks.

    Attributes
    ----------
    low, high : (G,) arrays
        Interval of the PCC of each gene; NaN where a gene has no correlation.
    mean_low, mean_high : float
        Interval of the mean PCC over genes.
    n_blocks : int
        Number of blocks.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean_low: float
    mean_high: float
    n_blocks: int


def assign_blocks(spots: Spots, side_pitches: int = BLOCK_SIDE_PITCHES) -> NDArray[np.int64]:
    """Return the block (N,) of each spot, from 0: squares with sides of `side_pitches` pitches."""
    xy = spots.xy
    pitch = median_spot_distance(xy) if len(xy) > 1 else 0.0
    if pitch <= 0:
        return np.zeros(len(xy), np.int64)
    low = xy.min(axis=0)
    span = xy.max(axis=0) - low
    # The squares are centred on the spots, so that both sides have blocks of the same size.
    count = np.maximum(np.ceil((span / pitch + 1) / side_pitches), 1)
    start = low - (count * side_pitches * pitch - span) / 2
    column, row = np.floor((xy - start) / (side_pitches * pitch)).astype(np.int64).T
    return np.unique(row * (int(count[0]) + 1) + column, return_inverse=True)[1].astype(np.int64)


def bootstrap_pcc(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    spots: Spots,
    n_resamples: int = N_RESAMPLES,
    side_pitches: int = BLOCK_SIDE_PITCHES,
    depth: NDArray[np.floating] | None = None,
) -> PccIntervals:
    """Return intervals of the correlations between two (N, G) arrays.

    A correlation needs six sums, which add up over blocks: one matrix product draws all resamples
    of all genes at once. With a depth both are regressed on it in every resample anew.

    Parameters
    ----------
    predicted, measured : (N, G) arrays
        Values at the same spots.
    spots : Spots
        The N spots.
    n_resamples : int
        Number of resamples.
    side_pitches : int
        Side of a block in pitches.
    depth : (N,) array, optional
        Depth of the spots; then the intervals are those of the depth-partial correlation.
    """
    undefined = np.full(predicted.shape[1], np.nan)
    drawn = resample_pcc(predicted, measured, spots, n_resamples, side_pitches, depth)
    usable, n_blocks = drawn.usable, drawn.n_blocks
    if not usable.any():
        return PccIntervals(undefined, undefined, np.nan, np.nan, n_blocks)
    pcc, observed = drawn.pcc[:, usable], drawn.observed[usable]
    t_factor = student_t_factor(n_blocks - 1) * np.sqrt(n_blocks / (n_blocks - 1))
    half_width = t_factor * np.nanstd(_fisher_z(pcc), axis=0)
    low, high = undefined.copy(), undefined.copy()
    low[usable] = np.tanh(_fisher_z(observed) - half_width)
    high[usable] = np.tanh(_fisher_z(observed) + half_width)
    mean = float(observed.mean())
    mean_half_width = float(t_factor * np.nanmean(pcc, axis=1).std())
    return PccIntervals(
        low, high, max(mean - mean_half_width, -1.0), min(mean + mean_half_width, 1.0), n_blocks
    )


def student_t_factor(degrees: int) -> float:
    """Return half the width of a 95 % interval in standard errors."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(degrees, (1 + CONFIDENCE_LEVEL) / 2))


@dataclass(frozen=True)
class ResampledPcc:
    """Correlations of R resamples; the draws depend on the spots only, so methods are paired.

    Attributes
    ----------
    pcc : (R, G) array
        Of each resample, NaN where undefined.
    observed : (G,) array
        Of all spots.
    usable : (G,) array
        Whether a gene has a correlation in most resamples; all False with fewer than four blocks.
    """

    pcc: NDArray[np.float64]
    observed: NDArray[np.float64]
    usable: NDArray[np.bool_]
    n_blocks: int


def resample_pcc(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    spots: Spots,
    n_resamples: int = N_RESAMPLES,
    side_pitches: int = BLOCK_SIDE_PITCHES,
    depth: NDArray[np.floating] | None = None,
) -> ResampledPcc:
    """Return the correlations of resampled blocks; parameters as of `bootstrap_pcc`."""
    block = assign_blocks(spots, side_pitches)
    n_blocks, n_genes = int(block.max()) + 1, predicted.shape[1]
    undefined = np.full(n_genes, np.nan)
    p = np.asarray(predicted, np.float64)
    m = np.asarray(measured, np.float64)
    if n_blocks < MIN_BLOCKS:
        return ResampledPcc(undefined[None], undefined, np.zeros(n_genes, bool), n_blocks)
    constant = (np.ptp(p, axis=0) < 1e-9) | (np.ptp(m, axis=0) < 1e-9)
    d = np.zeros(len(p)) if depth is None else np.asarray(depth, np.float64)
    if depth is not None:
        constant |= is_explained_by_depth(p, d) | is_explained_by_depth(m, d)
    p, m = p - p.mean(axis=0), m - m.mean(axis=0)  # centred values lose fewer digits
    d = (d - d.mean())[:, None]
    members = np.zeros((n_blocks, len(p)))
    members[block, np.arange(len(p))] = 1
    random = np.random.default_rng(BOOTSTRAP_SEED)
    draw_counts = random.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_resamples)
    draws = draw_counts.astype(float)
    weight = draws @ members.sum(axis=1, keepdims=True)
    sums = {id(v): draws @ (members @ v) for v in (p, m, d)}

    def covary(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of products (n_resamples, G) about the means of each resample."""
        return np.asarray(draws @ (members @ (a * b)) - sums[id(a)] * sums[id(b)] / weight)

    depth_square = covary(d, d)
    slope = np.divide(1, depth_square, out=np.zeros_like(depth_square), where=depth_square > 1e-12)
    spp, smm, spm = (
        covary(a, b) - covary(a, d) * covary(b, d) * slope for a, b in ((p, p), (m, m), (p, m))
    )
    spread = spp * smm
    pcc = np.full((n_resamples, n_genes), np.nan)
    defined = ~constant & (spread > 1e-24)
    np.divide(spm, np.sqrt(np.maximum(spread, 0)), out=pcc, where=defined)
    usable = defined.mean(axis=0) > 0.5
    observed = undefined.copy()
    if usable.any():
        observed = gene_pcc(regress_out_depth(p, d[:, 0]), regress_out_depth(m, d[:, 0]))
    return ResampledPcc(pcc, observed, np.asarray(usable), n_blocks)


def _fisher_z(pcc: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arctanh(np.clip(pcc, -_MAX_ABS_PCC, _MAX_ABS_PCC))
