"""The rough map: a few tiles all over a large target, shown until the fine ones are there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spatial.grid import TileGrid
from ..spatial.spots import Spots
from .target import Kind, Target

MOST = 100  # tiles of a rough map; they take seconds on two CPU cores
WORTH = 6  # times as many tiles the fine map must have


def rough_target(target: Target) -> Target | None:
    """The middle tiles of square blocks of the target's grid; None where it is small.

    Its grid are the blocks. They see each other as the spots of a coarse array, so the numbers
    are near those of the fine map and not equal to them.
    """
    grid = target.grid
    if target.kind is not Kind.GRID or grid is None or len(grid) < WORTH * MOST:
        return None
    side = _odd(int(np.ceil(np.sqrt(len(grid) / MOST))))
    while True:
        middle = (grid.cells % side == side // 2).all(axis=1)
        if 0 < middle.sum() <= MOST:
            break
        if not middle.any():
            return None
        side += 2
    blocks = grid.cells[middle] // side
    coarse = TileGrid(grid.pitch * side, grid.pitch_um * side, blocks)
    return Target(Kind.ARRAY, Spots(grid.centres[middle], blocks), coarse)


def block_of(fine: TileGrid, coarse: TileGrid) -> NDArray[np.int64]:
    """(N,) which row of the coarse grid each fine cell lies in, -1 where in none."""
    side = round(coarse.pitch / fine.pitch)
    row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(coarse.cells)}
    blocks = (fine.cells // side).tolist()
    return np.array([row_of.get((x, y), -1) for x, y in blocks], np.int64)


def _odd(number: int) -> int:
    """The next odd number: only then a block has a tile in its middle."""
    return number | 1
