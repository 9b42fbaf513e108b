"""Color scales of the report's maps and the color bars below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...inference.map_colors import ERROR_COLORMAP, RESIDUAL_COLORS, sample_colors
from ...inference.prediction import DISPLAY_PERCENTILES

N_COLOR_LEVELS = 64
MAP_WIDTH = 360.0  # of every map, in drawing units
COLOR_BAR_HEIGHT = 58.0  # of the color bar with its labels, in drawing units
COLOR_BAR_MARGIN = 27.0


@dataclass(frozen=True)
class MapColorScale:
    """Color scale of a map.

    Attributes
    ----------
    colors : str or tuple of str
        A color map, see `sample_colors`.
    low, high : float
        Values of the two ends.
    """

    colors: str | tuple[str, ...]
    low: float
    high: float

    def to_levels(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the color level (N,) of values (N,), from 0 to `N_COLOR_LEVELS` - 1.

        Values off the scale take its ends; NaN becomes -1.
        """
        known = np.isfinite(values)
        share = (np.where(known, values, self.low) - self.low) / (self.high - self.low)
        level = np.clip(np.floor(share * N_COLOR_LEVELS), 0, N_COLOR_LEVELS - 1).astype(np.int64)
        return np.where(known, level, -1)

    def palette(self) -> list[str]:
        """Return ``#rrggbb`` of each level."""
        return sample_colors(self.colors, N_COLOR_LEVELS)


def fit_shared_scale(values: Sequence[NDArray[np.floating]], colormap: str) -> MapColorScale:
    """Return one scale for several maps: percentiles 2 to 98 of their values together."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(known):
        return MapColorScale(colormap, 0.0, 1.0)
    low, high = (float(v) for v in np.percentile(known, DISPLAY_PERCENTILES))
    return (
        MapColorScale(colormap, low, high)
        if high - low > 1e-6
        else MapColorScale(colormap, low - 0.05, low + 0.05)
    )


def fit_residual_scale(values: NDArray[np.floating]) -> MapColorScale:
    """Return a scale centred on 0 with ends at equal distance."""
    known = np.abs(values[np.isfinite(values)])
    end = max(float(np.percentile(known, DISPLAY_PERCENTILES[1])), 1e-3) if len(known) else 1.0
    return MapColorScale(RESIDUAL_COLORS, -end, end)


def fit_error_scale(values: NDArray[np.floating]) -> MapColorScale:
    """Return a scale that starts at 0."""
    known = values[np.isfinite(values)]
    high = float(np.percentile(known, DISPLAY_PERCENTILES[1])) if len(known) else 1.0
    return MapColorScale(ERROR_COLORMAP, 0.0, max(high, 1e-6))


@dataclass(frozen=True)
class ColorBar:
    """A color bar in drawing units: cells (x, width, color) and ticks (x, value)."""

    left: float
    width: float
    cells: list[tuple[float, float, str]]
    ticks: list[tuple[float, float]]
    digits: int


def make_color_bar(scale: MapColorScale) -> ColorBar:
    """Lay out the color bar below a map."""
    left, width = COLOR_BAR_MARGIN, MAP_WIDTH - 2 * COLOR_BAR_MARGIN
    step = width / N_COLOR_LEVELS
    # Each cell is one unit wider than its step, or thin gaps show between them.
    cells = [
        (left + i * step, step + (i < N_COLOR_LEVELS - 1), color)
        for i, color in enumerate(scale.palette())
    ]
    span = scale.high - scale.low
    ticks = [(left + share * width, scale.low + share * span) for share in (0, 0.25, 0.5, 0.75, 1)]
    return ColorBar(left, width, cells, ticks, 2 if span >= 0.1 else 3)
