"""Context windows: the capture areas laid over a slide, of which a tile sees the nearest.

They lie fast on the slide, so a tile sees the same surroundings whatever else is predicted
beside it, a map costs the same per tile however large it is, and its first tiles need no more
than their own window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CAPTURE_AREA_UM = 6_600.0  # side of the array the published networks were trained on (33 x 200 um)
MIN_WINDOW_OVERLAP = 0.5  # of neighbouring windows, at least: no tile lies at the edge of its window

Level0Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class ContextWindowLayout:
    """Squares of ``side`` level-0 px, evenly spread so that they reach from edge to edge.

    A slide no larger than one of them is one window.
    """

    side: float
    width: int
    height: int

    def find_nearest_windows(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N, 2) column and row of the window whose centre is nearest to each point (N, 2)."""
        columns = [self._find_nearest_index(xy[:, i], limit) for i, limit in enumerate(self._slide_size)]
        return np.stack(columns, axis=1)

    def get_bounds(self, column: int, row: int) -> Level0Bounds:
        """(x0, y0, x1, y1) of a window in level-0 px, on the slide."""
        low = [i * self._compute_step(limit) for i, limit in zip((column, row), self._slide_size, strict=True)]
        high = [min(a + self.side, limit) for a, limit in zip(low, self._slide_size, strict=True)]
        return low[0], low[1], high[0], high[1]

    @property
    def _slide_size(self) -> tuple[int, int]:
        return self.width, self.height

    def _count_windows(self, limit: int) -> int:
        if self.side >= limit:
            return 1
        return math.ceil((limit - self.side) / (self.side * (1 - MIN_WINDOW_OVERLAP))) + 1

    def _compute_step(self, limit: int) -> float:
        count = self._count_windows(limit)
        return 0.0 if count == 1 else (limit - self.side) / (count - 1)

    def _find_nearest_index(self, x: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
        step, count = self._compute_step(limit), self._count_windows(limit)
        if count == 1:
            return np.zeros(len(x), np.int64)
        return np.rint((x - self.side / 2) / step).clip(0, count - 1).astype(np.int64)
