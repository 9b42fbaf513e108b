"""Histogram of a gene over the tiles of a map, and where single tiles and regions lie in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_BINS, MAX_BINS = 8, 60


@dataclass(frozen=True, eq=False)
class ValueHistogram:
    """Number of tiles per bin of values.

    Attributes
    ----------
    edges : (B + 1,) array
        Bins of equal width; the last one includes its upper edge.
    counts : (B,) array
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def n_tiles(self) -> int:
        return int(self.counts.sum())

    def log_heights(self) -> NDArray[np.float64]:
        """Return log10(1 + count) of each bin (B,), the highest bin is 1."""
        heights = np.log10(1 + self.counts)
        return np.asarray(heights / max(float(heights.max()), 1e-12), np.float64)


def build_histogram(values: NDArray[np.floating]) -> ValueHistogram | None:
    """Count values (N,) in bins from the lowest to the highest; None without a finite value.

    The number of bins grows with the number of values, so that few tiles are no comb.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    n_bins = int(np.clip(round(2 * np.sqrt(len(finite))), MIN_BINS, MAX_BINS))
    counts, edges = np.histogram(finite, n_bins, (low, high))
    return ValueHistogram(edges, counts.astype(np.int64))


@dataclass(frozen=True)
class ValueSpread:
    """Quartiles of the tiles of one region.

    Attributes
    ----------
    low, median, high : float
        The 25th, 50th and 75th percentile.
    n_tiles : int
    """

    low: float
    median: float
    high: float
    n_tiles: int


def measure_spread(values: NDArray[np.floating]) -> ValueSpread | None:
    """Return the quartiles of the finite values (N,); None without any."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    low, median, high = (float(v) for v in np.percentile(finite, (25, 50, 75)))
    return ValueSpread(low, median, high, len(finite))


def share_below(values: NDArray[np.floating], value: float) -> float:
    """Return the share of finite values (N,) below a value; NaN without any."""
    finite = values[np.isfinite(values)]
    return float((finite < value).mean()) if len(finite) else float("nan")
