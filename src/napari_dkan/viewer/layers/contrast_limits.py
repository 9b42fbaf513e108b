"""Contrast limits of maps, from the values that they show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...inference.prediction import DISPLAY_PERCENTILES

if TYPE_CHECKING:
    from ...model import Checkpoint

MIN_SYMMETRIC_LIMIT = 1e-3
LABEL_RANGE_STD = 2.0


def percentile_limits(values: Iterable[NDArray[np.floating]]) -> tuple[float, float]:
    """Return percentiles 2 and 98 of all finite values; the range is never empty."""
    finite = [v[np.isfinite(v)] for v in values]
    joined = np.concatenate(finite) if finite else np.empty(0)
    if not len(joined):
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(joined, DISPLAY_PERCENTILES))
    if high - low < 1e-6:
        return low - 0.05, low + 0.05
    return low, high


def get_label_range(checkpoint: Checkpoint, gene: str) -> tuple[float, float]:
    """Return mean and two standard deviations of a gene's training labels, not below zero.

    Zero-shot values are in standard deviations from their mean already.
    """
    if gene not in checkpoint.panel:
        return -LABEL_RANGE_STD, LABEL_RANGE_STD
    row = checkpoint.panel.row(gene)
    mean = float(checkpoint.network.label_mean[row])
    spread = LABEL_RANGE_STD * float(checkpoint.network.label_std[row])
    return (max(mean - spread, 0.0) if mean > 0 else mean - spread), mean + spread


def widen_limits(
    limits: tuple[float, float], values: Iterable[NDArray[np.floating]]
) -> tuple[float, float]:
    """Widen limits to contain all finite values."""
    finite = np.concatenate([limits, *(v[np.isfinite(v)] for v in values)])
    return float(finite.min()), float(finite.max())


def symmetric_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return limits around 0 at percentile 98 of the absolute finite values."""
    finite = np.abs(values[np.isfinite(values)])
    limit = 1.0
    if len(finite):
        limit = max(float(np.percentile(finite, DISPLAY_PERCENTILES[1])), MIN_SYMMETRIC_LIMIT)
    return -limit, limit


class WideningLimits:
    """Percentile limits that never narrow, so that colours do not flicker as values arrive."""

    def __init__(self) -> None:
        self.current: tuple[float, float] | None = None

    def update(self, values: NDArray[np.floating]) -> tuple[float, float]:
        """Widen the limits to those of ``values`` and return them; (0, 1) before any value."""
        if np.isfinite(values).any():
            low, high = percentile_limits([values])
            before = self.current or (low, high)
            self.current = min(low, before[0]), max(high, before[1])
        return self.current or (0.0, 1.0)
