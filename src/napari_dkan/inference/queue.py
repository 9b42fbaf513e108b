"""What is predicted next: the order may change while a job runs, as the camera moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .context import CellIndex

# Rows in the order wanted; or, given centres (N, 2) in level-0 px, how they are to be ordered
# now, None where that is as it was when last asked.
RowOrder = NDArray[np.int64] | Callable[[NDArray[np.float64]], NDArray[np.int64] | None] | None


class SpotQueue:
    """The rows of a job that are still to be predicted.

    xy : (N, 2) places. groups : (N, 2), equal where rows share their surroundings; a batch is
    always of one group.
    """

    def __init__(
        self, xy: NDArray[np.float64], window_indices: NDArray[np.int64], order: RowOrder = None
    ) -> None:
        self._xy, self._window_indices = xy, window_indices
        self._order_callback = order if callable(order) else None
        fixed = order is not None and not callable(order)
        self._remaining = np.asarray(order, np.int64) if fixed else np.arange(len(xy))
        self._reorder()

    def __len__(self) -> int:
        return len(self._remaining)

    def pop_batch(self, max_rows: int) -> tuple[NDArray[np.int64], CellIndex]:
        """Up to ``most`` rows (B,) of the group that is wanted first, and that group."""
        group = self.next_window
        same = np.flatnonzero((self._window_indices[self._remaining] == group).all(axis=1))[:max_rows]
        rows = self._remaining[same]
        self._remaining = np.delete(self._remaining, same)
        return rows, group

    @property
    def next_window(self) -> CellIndex:
        """The group that is wanted first now."""
        self._reorder()
        column, row = self._window_indices[self._remaining[0]]
        return int(column), int(row)

    def drop(self, rows: NDArray[np.int64]) -> None:
        """These rows need nothing any more."""
        self._remaining = self._remaining[~np.isin(self._remaining, rows)]

    def rows_in_window(self, window_index: CellIndex) -> NDArray[np.int64]:
        """All rows of a group, whether done or not."""
        return np.flatnonzero((self._window_indices == window_index).all(axis=1))

    @property
    def remaining_rows(self) -> NDArray[np.int64]:
        return self._remaining

    def _reorder(self) -> None:
        if self._order_callback is not None and len(self._remaining):
            order = self._order_callback(self._xy[self._remaining])
            if order is not None:
                self._remaining = self._remaining[order]
