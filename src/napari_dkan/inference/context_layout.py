"""Where the context windows of a slide lie, and how adjacent ones are blended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .patch_features.patch_geometry import Level0Bounds

MIN_WINDOW_OVERLAP = 0.5  # of adjacent windows: every tile is away from the edge of its window
BLENDED_SHARE = 0.5  # of the distance between the centers of adjacent windows

CellIndex = tuple[int, int]


@dataclass(frozen=True)
class ContextWindowLayout:
    """Square windows of ``side`` level-0 px, evenly spaced over a slide of width x height px.

    A slide that is not larger than a window has one window. On a larger one a spot near the
    center of a window sees that window alone; halfway between two centers the contexts of both
    are blended, with weights that change linearly, so that no border is visible.

    A *zone* is a rectangle of the slide whose spots see the same windows. Along an axis the even
    zones have one window, number ``zone // 2``, and the odd ones between them also the next.
    """

    side: float
    width: int
    height: int

    @property
    def n_columns(self) -> int:
        """Number of windows side by side."""
        return self._count_windows(self.width)

    def find_zones(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N, 2) column and row of the zone of each point (N, 2)."""
        zones = []
        for i, limit in enumerate(self._slide_size):
            index, weight = self._locate(xy[:, i], limit)
            zones.append(2 * index + (weight > 0) + (weight == 1))
        return np.stack(zones, axis=1).astype(np.int64)

    def list_windows(self, zone: CellIndex) -> list[CellIndex]:
        """Column and row of the one, two or four windows of a zone."""
        columns, rows = (range(z // 2, z // 2 + 1 + z % 2) for z in zone)
        return [(column, row) for row in rows for column in columns]

    def compute_weights(self, xy: NDArray[np.float64], zone: CellIndex) -> NDArray[np.float32]:
        """(N, W) weights of the zone's windows at points (N, 2) in it; their sum is 1."""
        each = []
        for i, limit in enumerate(self._slide_size):
            _, weight = self._locate(xy[:, i], limit)
            is_blended = zone[i] % 2 == 1
            each.append(
                np.stack([1 - weight, weight], axis=1) if is_blended else np.ones((len(xy), 1))
            )
        columns, rows = each
        return (rows[:, :, None] * columns[:, None]).reshape(len(xy), -1).astype(np.float32)

    def get_bounds(self, column: int, row: int) -> Level0Bounds:
        """Bounds of a window, clipped to the slide."""
        low = [
            i * self._compute_step(limit)
            for i, limit in zip((column, row), self._slide_size, strict=True)
        ]
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

    def _locate(
        self, x: NDArray[np.float64], limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Window whose center lies before each position, and the weight of the next window."""
        step, count = self._compute_step(limit), self._count_windows(limit)
        if count == 1:
            return np.zeros(len(x), np.int64), np.zeros(len(x))
        position = ((x - self.side / 2) / step).clip(0, count - 1)
        index = np.floor(position).clip(0, count - 2).astype(np.int64)
        weight = ((position - index - (1 - BLENDED_SHARE) / 2) / BLENDED_SHARE).clip(0, 1)
        return index, weight
