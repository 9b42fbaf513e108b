"""Compare the genes of tiles in two regions of one slide, by permutation of spatial blocks.

Neighbouring tiles are alike, whether predicted or measured, so a test that counts every tile finds
differences between any two places of a slide. Here square blocks of tiles are permuted: the part
of a block that lies in A, or in B, is one unit, and the labels A and B are drawn again among units.
The statistic is the difference of the means over its standard error between units (Chung and
Romano, Annals of Statistics 41, 484, 2013: valid for units of different sizes and variances).

The units of a region are neighbours, and drawn ones are scattered, so that smooth expression
differs more between regions than between drawn units. The statistic is therefore divided by the
ratio of the two standard errors under the correlation fitted to these tiles
(`spatial_correlation`). False positives of the parts: benchmarks/region_test.py.

The tiles of one slide are one patient: a small p says that the difference is unlikely between two
such places of this slide, and nothing about other patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..spatial.spots import Spots, median_spot_distance
from ..training.block_bootstrap import BLOCK_SIDE_PITCHES, assign_blocks
from .spatial_correlation import SpatialCorrelation, fit_spatial_correlation

N_PERMUTATIONS = 9_999
PERMUTATION_SEED = 2021
GENES_PER_CHUNK = 256  # permutations x genes are held in memory
MIN_EFFECTIVE_BLOCKS = 2.0  # of A and of B; with fewer there is nothing to draw
MAX_VARIANCE_DRAWS = 1_000
MAX_INFLATION_TILES = 3_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegionComparison:
    """Differences of G genes, or gene sets, between the tiles of A and those of B.

    Attributes
    ----------
    symbols : tuple of str
        The G genes.
    n_a, n_b : int
        Numbers of tiles.
    blocks_a, blocks_b : float
        Effective numbers of blocks: (sum of tiles)^2 / sum of squares.
    inflation : float
        Variance of the difference between these regions over that between drawn units, at least 1.
    mean_a, mean_b : (G,) arrays
    difference : (G,) array
        Mean of A minus mean of B, in the units of the values.
    effect : (G,) array
        Cohen's d: the difference in standard deviations of a tile within A and within B; NaN
        where that is 0.
    superiority : (G,) array
        Probability that a tile of A has a higher value than one of B, ties counted half.
    p_value, p_adjusted : (G,) arrays
        Two-sided, from the permutation of blocks; adjusted over the genes by Benjamini and
        Hochberg. NaN where A or B has fewer than two effective blocks.
    """

    symbols: tuple[str, ...]
    n_a: int
    n_b: int
    blocks_a: float
    blocks_b: float
    inflation: float
    mean_a: FloatArray
    mean_b: FloatArray
    difference: FloatArray
    effect: FloatArray
    superiority: FloatArray
    p_value: FloatArray
    p_adjusted: FloatArray

    @property
    def is_tested(self) -> bool:
        """Whether there are enough blocks for a test."""
        return min(self.blocks_a, self.blocks_b) >= MIN_EFFECTIVE_BLOCKS


def compare_regions(
    values: NDArray[np.floating],
    symbols: tuple[str, ...],
    xy: NDArray[np.floating],
    in_a: NDArray[np.bool_],
    in_b: NDArray[np.bool_],
) -> RegionComparison:
    """Compare the values of tiles in A with those in B.

    The result does not depend on the order of the tiles.

    Parameters
    ----------
    values : (N, G) array
        Values of the tiles.
    symbols : tuple of str
        The G genes.
    xy : (N, 2) array
        Centres of the tiles in level-0 px.
    in_a, in_b : (N,) bool arrays
        Tiles of A and of B; no tile is in both.

    Raises
    ------
    SpotsError
        If A or B has no tile, a tile is in both, or a value is missing.
    """
    a, b = np.asarray(in_a, bool), np.asarray(in_b, bool)
    if not a.any() or not b.any():
        raise SpotsError("One of the regions has no predicted tile; predict it first.")
    if (a & b).any():
        raise SpotsError("Some tiles are in both regions; choose two that do not overlap.")
    used = a | b
    order = np.flatnonzero(used)[np.lexsort(np.asarray(xy)[used].T)]
    table = np.asarray(values, np.float64)[order]
    positions = np.asarray(xy, np.float64)[order]
    if not np.isfinite(table).all():
        raise SpotsError("Some tiles have no value of some gene; predict all genes first.")
    is_a = a[order]
    block = assign_blocks(Spots(positions), BLOCK_SIDE_PITCHES)
    units = _Units.build(table, is_a, block)
    mean_a, mean_b = table[is_a].mean(axis=0), table[~is_a].mean(axis=0)
    blocks_a, blocks_b = (units.effective_count(label) for label in (True, False))
    p_value, inflation = np.full(table.shape[1], np.nan), np.nan
    if min(blocks_a, blocks_b) >= MIN_EFFECTIVE_BLOCKS:
        pitch = median_spot_distance(positions)
        correlation = fit_spatial_correlation(table, positions, is_a, pitch)
        draws, is_exact = _draw_labels(units)
        inflation = _inflation(units, draws, positions, correlation)
        p_value = _permute(units, draws, is_exact, inflation)
    return RegionComparison(
        symbols,
        int(is_a.sum()),
        int((~is_a).sum()),
        blocks_a,
        blocks_b,
        inflation,
        mean_a,
        mean_b,
        mean_a - mean_b,
        cohens_d(table[is_a], table[~is_a]),
        probability_above(table, is_a),
        p_value,
        adjust_p_values(p_value),
    )


def adjust_p_values(p_value: FloatArray) -> FloatArray:
    """Adjust by Benjamini and Hochberg (1995); NaN stays NaN and does not count."""
    from scipy.stats import false_discovery_control

    adjusted = np.full(len(p_value), np.nan)
    known = np.isfinite(p_value)
    if known.any():
        adjusted[known] = false_discovery_control(p_value[known], method="bh")
    return adjusted


@dataclass(frozen=True, eq=False)
class _Units:
    """The U parts of blocks that lie in A or in B.

    Attributes
    ----------
    unit : (N,) array
        The unit of each tile.
    sums : (U, G) array
        Sums of the values over the tiles of a unit.
    sizes : (U,) array
        Numbers of tiles.
    is_a : (U,) bool array
    """

    unit: NDArray[np.int64]
    sums: FloatArray
    sizes: FloatArray
    is_a: NDArray[np.bool_]

    @classmethod
    def build(cls, values: FloatArray, is_a: NDArray[np.bool_], block: NDArray[np.int64]) -> _Units:
        """Number the units by their first tile, so that exchanging A and B changes no order."""
        key = 2 * block + is_a
        _, first, unit = np.unique(key, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        unit = rank[unit]
        sizes = np.bincount(unit).astype(np.float64)
        # About the mean of all tiles: sums of squares of large numbers would lose digits.
        centred = values - values.mean(axis=0)
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, unit, centred)
        labels = np.zeros(len(sizes), bool)
        labels[unit] = is_a
        return cls(unit, sums, sizes, labels)

    def effective_count(self, label: bool) -> float:
        """Return the effective number of units of A (True) or B."""
        sizes = self.sizes[self.is_a == label]
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    @property
    def smaller_label(self) -> bool:
        """The label with fewer units, whose units are drawn."""
        return 2 * int(self.is_a.sum()) <= len(self.is_a)


def _draw_labels(units: _Units) -> tuple[FloatArray, bool]:
    """Return drawings (D, U) of the units of one side, and whether they are all there are."""
    n_units = len(units.sizes)
    smaller = int((units.is_a == units.smaller_label).sum())
    is_exact = comb(n_units, smaller) <= N_PERMUTATIONS
    if is_exact:
        chosen = np.array(list(combinations(range(n_units), smaller)))
    else:
        keys = np.random.default_rng(PERMUTATION_SEED).random((N_PERMUTATIONS, n_units))
        chosen = np.argpartition(keys, smaller, axis=1)[:, :smaller]
    draws = np.zeros((len(chosen), n_units))
    np.put_along_axis(draws, chosen, 1, axis=1)
    return draws, is_exact


def _permute(units: _Units, draws: FloatArray, is_exact: bool, inflation: float) -> FloatArray:
    """Return two-sided p-values (G,)."""
    observed = (units.is_a == units.smaller_label)[None].astype(np.float64)
    p_value = np.empty(units.sums.shape[1])
    for start in range(0, len(p_value), GENES_PER_CHUNK):
        genes = slice(start, start + GENES_PER_CHUNK)
        sums = units.sums[:, genes]
        limit = _studentized(observed, sums, units.sizes) / np.sqrt(inflation) * (1 - 1e-9)
        exceeding = (_studentized(draws, sums, units.sizes) >= limit).sum(axis=0)
        p_value[genes] = (exceeding + (not is_exact)) / (len(draws) + (not is_exact))
    return p_value


def _inflation(
    units: _Units, draws: FloatArray, xy: FloatArray, correlation: SpatialCorrelation
) -> float:
    """Return the variance of the difference over its mean over drawings, at least 1."""
    from scipy.spatial.distance import cdist

    # Large regions: the correlation of two units from a few tiles of each, spread over them.
    rows = np.arange(len(xy))[:: -(-len(xy) // MAX_INFLATION_TILES)]
    members = np.zeros((len(units.sizes), len(rows)))
    members[units.unit[rows], np.arange(len(rows))] = 1
    sampled = np.maximum(members.sum(axis=1, keepdims=True), 1)
    mean_of = members / sampled
    covariance = mean_of @ correlation.between(cdist(xy[rows], xy[rows])) @ mean_of.T
    covariance *= units.sizes[:, None] * units.sizes
    covariance[np.diag_indices_from(covariance)] += (1 - correlation.share) * units.sizes
    observed = (units.is_a == units.smaller_label)[None].astype(np.float64)
    step = -(-len(draws) // MAX_VARIANCE_DRAWS)

    def variance(chosen: FloatArray) -> FloatArray:
        weight = chosen @ units.sizes[:, None]
        contrast = chosen / weight - (1 - chosen) / (units.sizes.sum() - weight)
        return np.asarray(((contrast @ covariance) * contrast).sum(axis=1))

    return max(1.0, float(variance(observed)[0] / variance(draws[::step]).mean()))


def _studentized(draws: FloatArray, sums: FloatArray, sizes: FloatArray) -> FloatArray:
    """Return |difference| / standard error, (D, G), of drawings (D, U) of the units of one side."""
    difference = np.zeros((len(draws), sums.shape[1]))
    variance = np.zeros_like(difference)
    for sign, chosen in ((1, draws), (-1, 1 - draws)):
        count = chosen.sum(axis=1, keepdims=True)
        weight = chosen @ sizes[:, None]
        mean = chosen @ sums / weight
        # Between units, weighted by their tiles: sum of (s - w mean)^2.
        square = chosen @ sums**2 - 2 * mean * (chosen @ (sums * sizes[:, None]))
        square += mean**2 * (chosen @ (sizes**2)[:, None])
        variance = variance + np.maximum(square, 0) / weight**2 * count / np.maximum(count - 1, 1)
        difference = difference + sign * mean
    # A gene that is the same everywhere has no difference: 0 / 0 counts as 0.
    scale = np.sqrt(np.maximum(variance, 1e-24))
    return np.asarray(np.abs(difference) / scale)


def cohens_d(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Cohen's d (G,) of the tiles (N, G) of two places; NaN where nothing varies in them."""
    freedom = max(len(a) + len(b) - 2, 1)
    within = ((a - a.mean(axis=0)) ** 2).sum(axis=0) + ((b - b.mean(axis=0)) ** 2).sum(axis=0)
    deviation = np.sqrt(within / freedom)
    effect = np.full(a.shape[1], np.nan)
    np.divide(a.mean(axis=0) - b.mean(axis=0), deviation, out=effect, where=deviation > 1e-9)
    return effect


def probability_above(values: FloatArray, is_a: NDArray[np.bool_]) -> FloatArray:
    """Return the probability (G,) that a tile of A is above another one, ties counted half.

    The area under the ROC curve of values (N, G), from ranks (Mann and Whitney).
    """
    from scipy.stats import rankdata

    n_a, n_b = int(is_a.sum()), int((~is_a).sum())
    rank_sum = rankdata(values, axis=0)[is_a].sum(axis=0)
    return np.asarray((rank_sum - n_a * (n_a + 1) / 2) / (n_a * n_b))
