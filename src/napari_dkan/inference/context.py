"""The slide context: the tiles that the global encoder sees around what is predicted.

The encoder was trained on the spots of a whole capture area. A job on a grid, and every
click, sees the tissue tiles of a grid inside one capture-area window; spots with array
coordinates are their own context.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ..spatial.grid import cells_in_box

CAPTURE_UM = 6_600.0  # side of the array the published networks were trained on (33 x 200 um)


def capture_window(
    bounds: tuple[float, float, float, float], side: float, width: int, height: int
) -> tuple[float, float, float, float]:
    """Bounds grown to at least ``side`` (level-0 px) and kept on the slide.

    The window is moved, not cut, at the slide's edge: a slide no larger than a capture
    area always gives the same window, so a click and a map agree.
    """
    x0, x1 = _grow(bounds[0], bounds[2], side, width)
    y0, y1 = _grow(bounds[1], bounds[3], side, height)
    return x0, y0, x1, y1


def _grow(low: float, high: float, side: float, limit: float) -> tuple[float, float]:
    side = max(side, high - low)
    if side >= limit:
        return 0.0, float(limit)
    start = min(max((low + high - side) / 2, 0.0), limit - side)
    return start, start + side


def context_cells(
    window: tuple[float, float, float, float],
    tissue: BaseGeometry,
    pitch: float,
    width: int,
    height: int,
    extra: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(M, 2) tissue cells in the window, together with ``extra`` (K, 2); unique, sorted."""
    cells = cells_in_box(window, pitch, width, height)
    centres = (cells + 0.5) * pitch
    cells = cells[contains_xy(tissue, centres[:, 0], centres[:, 1])] if len(cells) else cells
    return np.unique(np.concatenate([cells, extra.reshape(-1, 2)]), axis=0)
