"""The circle of the gene lens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LensCircle:
    """Centre and radius in level-0 px."""

    x: float
    y: float
    radius: float

    def distances_to(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N,) of points (N, 2) from the centre."""
        return np.asarray(np.hypot(xy[:, 0] - self.x, xy[:, 1] - self.y))

    def centre_distance(self, other: LensCircle) -> float:
        """Distance of the two centres."""
        return float(np.hypot(self.x - other.x, self.y - other.y))

    def overlapping_cells(self, pitch: float, shape: tuple[int, int]) -> NDArray[np.int64]:
        """(N, 2) column and row of the cells it touches, the nearest to its centre first.

        shape : (rows, columns) of the grid.
        """
        axes = []
        for centre, count in ((self.x, shape[1]), (self.y, shape[0])):
            low, high = ((centre + sign * self.radius) // pitch for sign in (-1, 1))
            axes.append(np.arange(max(low, 0), min(high, count - 1) + 1))
        column, row = np.meshgrid(*axes)
        cells = np.stack([column.ravel(), row.ravel()], axis=1)
        centre_xy = np.array([self.x, self.y])
        nearest = np.clip(centre_xy, cells * pitch, (cells + 1) * pitch)
        cells = cells[self.distances_to(nearest) <= self.radius]
        order = np.argsort(self.distances_to((cells + 0.5) * pitch))
        return np.asarray(cells[order], np.int64)
