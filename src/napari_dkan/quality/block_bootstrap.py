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

from ..spatial.spots import Spots
from ..training.metrics import gene_pcc

BLOCK_SIDE_PITCHES = 6  # pitches a side; smaller ones hold the truth less often
N_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_SEED = 2021
_MAX_ABS_PCC = 1 - 1e-6
MIN_BLOCKS = 4  # below, an interval would say more about the blocks than about the spots


@dataclass(frozen=True)
class PccIntervals:
    """95 % intervals: `low` and `high` (G,) of each gene's PCC, and of their mean over genes.

    blocks : how many there were to draw from. NaN where there were fewer than four, or the gene
    has no correlation.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean_low: float
    mean_high: float
    n_blocks: int


def assign_blocks(spots: Spots, side_pitches: int = BLOCK_SIDE_PITCHES) -> NDArray[np.int64]:
    """(N,) the block of each spot, from 0: squares of `side` pitches laid over the slide."""
    from scipy.spatial import cKDTree

    xy = spots.xy
    if len(xy) < 2:
        return np.zeros(len(xy), np.int64)
    pitch = float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))
    if pitch <= 0:
        return np.zeros(len(xy), np.int64)
    low = xy.min(axis=0)
    span = xy.max(axis=0) - low
    # the squares are centred on the spots, so that no sliver of a block is left at one side only
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
) -> PccIntervals:
    """Intervals of the correlations between two (N, G) arrays over spots (N).

    A correlation needs six sums, which add up over blocks: one product of matrices draws all
    resamples of all genes at once.
    """
    from scipy.stats import t as student

    block = assign_blocks(spots, side_pitches)
    count, genes = int(block.max()) + 1, predicted.shape[1]
    unknown = np.full(genes, np.nan)
    p = np.asarray(predicted, np.float64)
    m = np.asarray(measured, np.float64)
    if count < MIN_BLOCKS:
        return PccIntervals(unknown, unknown, np.nan, np.nan, count)
    constant = (np.ptp(p, axis=0) < 1e-9) | (np.ptp(m, axis=0) < 1e-9)
    p, m = p - p.mean(axis=0), m - m.mean(axis=0)  # small numbers keep their digits
    member = np.zeros((count, len(p)))
    member[block, np.arange(len(p))] = 1
    random = np.random.default_rng(BOOTSTRAP_SEED)
    times = random.multinomial(count, np.full(count, 1 / count), size=n_resamples).astype(float)
    weight = times @ member.sum(axis=1, keepdims=True)
    sp, sm, spp, smm, spm = (times @ (member @ v) for v in (p, m, p * p, m * m, p * m))
    spread = (spp - sp**2 / weight) * (smm - sm**2 / weight)
    pcc = np.full((n_resamples, genes), np.nan)
    known = ~constant & (spread > 1e-24)
    np.divide(spm - sp * sm / weight, np.sqrt(np.maximum(spread, 0)), out=pcc, where=known)
    whole = known.mean(axis=0) > 0.5
    if not whole.any():
        return PccIntervals(unknown, unknown, np.nan, np.nan, count)
    pcc, found = pcc[:, whole], gene_pcc(p[:, whole], m[:, whole])
    reach = student.ppf((1 + CONFIDENCE_LEVEL) / 2, count - 1) * np.sqrt(count / (count - 1))
    half = reach * np.nanstd(_fisher_z(pcc), axis=0)
    low, high = unknown.copy(), unknown.copy()
    low[whole], high[whole] = np.tanh(_fisher_z(found) - half), np.tanh(_fisher_z(found) + half)
    mean, half_all = float(found.mean()), float(reach * np.nanmean(pcc, axis=1).std())
    return PccIntervals(low, high, max(mean - half_all, -1.0), min(mean + half_all, 1.0), count)


def _fisher_z(pcc: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arctanh(np.clip(pcc, -_MAX_ABS_PCC, _MAX_ABS_PCC))
