"""What is predicted next: the order may change while a job runs, as the camera moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .context import Cell

# Rows in the order wanted; or, given centres (N, 2) in level-0 px, how they are to be ordered
# now, None where that is as it was when last asked.
Order = NDArray[np.int64] | Callable[[NDArray[np.float64]], NDArray[np.int64] | None] | None


class Queue:
    """The rows of a job that are still to be predicted.

    xy : (N, 2) places. groups : (N, 2), equal where rows share their surroundings; a batch is
    always of one group.
    """

    def __init__(
        self, xy: NDArray[np.float64], groups: NDArray[np.int64], order: Order = None
    ) -> None:
        self._xy, self._groups = xy, groups
        self._ask = order if callable(order) else None
        fixed = order is not None and not callable(order)
        self._left = np.asarray(order, np.int64) if fixed else np.arange(len(xy))
        self._sort()

    def __len__(self) -> int:
        return len(self._left)

    def next(self, most: int) -> tuple[NDArray[np.int64], Cell]:
        """Up to ``most`` rows (B,) of the group that is wanted first, and that group."""
        group = self.group
        same = np.flatnonzero((self._groups[self._left] == group).all(axis=1))[:most]
        rows = self._left[same]
        self._left = np.delete(self._left, same)
        return rows, group

    @property
    def group(self) -> Cell:
        """The group that is wanted first now."""
        self._sort()
        column, row = self._groups[self._left[0]]
        return int(column), int(row)

    def drop(self, rows: NDArray[np.int64]) -> None:
        """These rows need nothing any more."""
        self._left = self._left[~np.isin(self._left, rows)]

    def rows_of(self, group: Cell) -> NDArray[np.int64]:
        """All rows of a group, whether done or not."""
        return np.flatnonzero((self._groups == group).all(axis=1))

    @property
    def left(self) -> NDArray[np.int64]:
        return self._left

    def _sort(self) -> None:
        if self._ask is not None and len(self._left):
            order = self._ask(self._xy[self._left])
            if order is not None:
                self._left = self._left[order]
