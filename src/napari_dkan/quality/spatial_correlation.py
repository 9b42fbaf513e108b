"""How far the values of tiles are correlated on a slide, fitted to their correlogram.

Values about the means of two regions are less correlated than the values themselves, as the means
follow them; a correlogram taken at its word makes blocks look independent that are not. So a model
of the correlation is fitted as it would look about the means (the moment equations of a
variogram of residuals: Cressie, Statistics for Spatial Data, Wiley, 1993, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_FITTED_TILES = 1_000  # pairs are held in memory; of more tiles a sample is drawn
MAX_FITTED_GENES = 256
N_LENGTHS = 14
SAMPLE_SEED = 2021

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SpatialCorrelation:
    """Correlation of two tiles at a distance: ``share * exp(-(distance / length) ** power)``.

    Attributes
    ----------
    length : float
        In the units of the positions.
    power : int
        1 for an exponential, 2 for a Gaussian.
    share : float
        Share of the variance that is correlated, 0 to 1; the rest is noise of each tile.
    """

    length: float
    power: int
    share: float

    def between(self, distance: FloatArray) -> FloatArray:
        """Return the correlation at distances of any shape, without the noise at 0."""
        return np.asarray(self.share * np.exp(-((distance / self.length) ** self.power)))


def fit_spatial_correlation(
    values: FloatArray, xy: FloatArray, group: NDArray[np.bool_], pitch: float
) -> SpatialCorrelation:
    """Fit the correlation of tiles about the means of two groups, over all genes.

    Parameters
    ----------
    values : (N, G) array
        Without NaN.
    xy : (N, 2) array
        Positions.
    group : (N,) bool array
        The group of each tile.
    pitch : float
        Distance between neighbours, in the units of the positions.
    """
    from scipy.spatial.distance import pdist, squareform

    if len(xy) > MAX_FITTED_TILES:
        rows = np.random.default_rng(SAMPLE_SEED).choice(len(xy), MAX_FITTED_TILES, replace=False)
        values, xy, group = values[rows], xy[rows], group[rows]
    membership = np.stack([group, ~group]).astype(np.float64)
    membership = membership[membership.any(axis=1)]
    averaging = membership / membership.sum(axis=1, keepdims=True)
    residual = values - membership.T @ (averaging @ values)
    deviation = residual.std(axis=0)
    genes = np.flatnonzero(deviation > 1e-9)
    genes = genes[:: -(-len(genes) // MAX_FITTED_GENES) or 1]
    none = SpatialCorrelation(pitch, 1, 0.0)
    if not len(genes) or pitch <= 0 or len(xy) < 4:
        return none
    z = residual[:, genes] / deviation[genes]
    distance = squareform(pdist(xy))
    lag = np.rint(distance / pitch).astype(np.int64).ravel()
    count = np.bincount(lag)
    far = np.flatnonzero(count)[1:]  # lags without the tile itself
    if not len(far):
        return none
    weight = count[far] / far  # near tiles matter most to neighbouring blocks

    def correlogram(matrix: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(lag, matrix.ravel())[far] / count[far])

    observed = correlogram(z @ z.T / len(genes))
    best, least = none, np.inf
    for length in np.geomspace(0.5, max(far[-1], 1), N_LENGTHS) * pitch:
        for power in (1, 2):
            model = SpatialCorrelation(float(length), power, 1.0).between(distance)
            means = model @ averaging.T @ membership
            about_means = model - means - means.T + membership.T @ (averaging @ means)
            variance = float(np.trace(about_means)) / len(xy)
            if variance < 1e-6:
                continue
            expected = correlogram(about_means)
            share = float((weight * expected * observed).sum() / (weight * expected**2).sum())
            share = min(max(share, 0.0), 1 / variance)  # of a variance of 1 about the means
            error = float((weight * (observed - share * expected) ** 2).sum())
            if error < least:
                noise = max(1 - share * variance, 0.0)
                least = error
                best = SpatialCorrelation(float(length), power, share / (share + noise))
    return best
