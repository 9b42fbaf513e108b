"""(x, y) and (row, column): everything stored is (x, y), napari is (row, column)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def swap_xy(points: ArrayLike) -> NDArray[np.float64]:
    """(x, y) -> (row, column) and back; the last axis has length 2."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (2,):
        raise ValueError(f"points need two coordinates, not the shape {array.shape}")
    return array[..., ::-1].copy()
