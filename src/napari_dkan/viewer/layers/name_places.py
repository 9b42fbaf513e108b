"""Places of the names of regions on the canvas, where each is read and belongs to its region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

GAP_PX = 2.0  # between a name and an outline, or another name


def place_names(
    outlines: Sequence[NDArray[np.float64]],
    anchors: NDArray[np.float64],
    sizes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Place names so that no two of them meet, those of the largest regions first.

    A name stands at the anchor of its region, but not inside a smaller one, of which it would seem
    to be the name; else below the upper or above the lower edge of its region, or outside of it.

    Parameters
    ----------
    outlines : sequence of (V, 2) arrays
        N shapes in px of the canvas (row, column), those of holes too.
    anchors : ndarray, (N, 2)
        Where the names stand if nothing is in the way.
    sizes : ndarray, (N, 2)
        Height and width of the names in px; 0 where there is none.

    Returns
    -------
    ndarray, (N, 2)
        Centres of the names in px; NaN where there is none, or no room for it.
    """
    low = np.array([o.min(axis=0) for o in outlines]).reshape(-1, 2)
    high = np.array([o.max(axis=0) for o in outlines]).reshape(-1, 2)
    areas = np.prod(high - low, axis=1)
    is_misleading = _lie_in_smaller(outlines, anchors, areas)
    placed, taken = np.full((len(outlines), 2), np.nan), _TakenPlaces(sizes)
    for row in np.argsort(-areas, kind="stable"):
        height, width = sizes[row].tolist()
        if not width:
            continue
        column, step = (low[row, 1] + high[row, 1]) / 2, height / 2 + GAP_PX
        rows = low[row, 0] + step, high[row, 0] - step, low[row, 0] - step, high[row, 0] + step
        choices = [(r, column) for r in rows]
        if not is_misleading[row]:
            choices.insert(0, tuple(anchors[row]))
        for y, x in choices:
            if taken.add(float(y), float(x), height, width):
                placed[row] = y, x
                break
    return placed


class _TakenPlaces:
    """Names by cells of the canvas as large as the largest: those that meet are neighbours."""

    def __init__(self, sizes: NDArray[np.float64]) -> None:
        self._cell = (sizes.max(axis=0, initial=0) + GAP_PX).tolist()
        self._names: dict[tuple[float, float], list[tuple[float, ...]]] = defaultdict(list)

    def add(self, y: float, x: float, height: float, width: float) -> bool:
        """Take a place for a name; return False if one is too near."""
        row, column = y // self._cell[0], x // self._cell[1]
        for cell in ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            for other_y, other_x, other_height, other_width in self._names.get(cell, ()):
                if (
                    abs(y - other_y) < (height + other_height) / 2 + GAP_PX
                    and abs(x - other_x) < (width + other_width) / 2 + GAP_PX
                ):
                    return False
        self._names[row, column].append((y, x, height, width))
        return True


def _lie_in_smaller(
    outlines: Sequence[NDArray[np.float64]],
    anchors: NDArray[np.float64],
    areas: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return whether each anchor lies in a shape that is smaller than its own."""
    areal = [i for i, outline in enumerate(outlines) if len(outline) > 2]
    tree = shapely.STRtree([shapely.Polygon(outlines[i]) for i in areal])
    inside, around = tree.query(shapely.points(anchors), predicate="within")
    around = np.array(areal, int)[around]
    found = np.zeros(len(outlines), bool)
    found[inside[areas[around] < areas[inside]]] = True
    return found
