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

CAPTURE_UM = 6_600.0  # side of the array the published networks were trained on (33 x 200 um)
OVERLAP = 0.5  # of neighbouring windows, at least: no tile lies at the edge of its window

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Windows:
    """Squares of ``side`` level-0 px, evenly spread so that they reach from edge to edge.

    A slide no larger than one of them is one window.
    """

    side: float
    width: int
    height: int

    def of(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N, 2) column and row of the window whose centre is nearest to each point (N, 2)."""
        columns = [self._index(xy[:, i], limit) for i, limit in enumerate(self._limits)]
        return np.stack(columns, axis=1)

    def bounds(self, column: int, row: int) -> Bounds:
        """(x0, y0, x1, y1) of a window in level-0 px, on the slide."""
        low = [i * self._step(limit) for i, limit in zip((column, row), self._limits, strict=True)]
        high = [min(a + self.side, limit) for a, limit in zip(low, self._limits, strict=True)]
        return low[0], low[1], high[0], high[1]

    @property
    def _limits(self) -> tuple[int, int]:
        return self.width, self.height

    def _count(self, limit: int) -> int:
        if self.side >= limit:
            return 1
        return math.ceil((limit - self.side) / (self.side * (1 - OVERLAP))) + 1

    def _step(self, limit: int) -> float:
        count = self._count(limit)
        return 0.0 if count == 1 else (limit - self.side) / (count - 1)

    def _index(self, x: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
        step, count = self._step(limit), self._count(limit)
        if count == 1:
            return np.zeros(len(x), np.int64)
        return np.rint((x - self.side / 2) / step).clip(0, count - 1).astype(np.int64)
