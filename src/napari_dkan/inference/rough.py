"""The rough map: a few tiles all over a large target, shown until the fine ones are there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spatial.grid import TileGrid
from ..spatial.spots import Spots
from .target import TargetKind, Target

MAX_COARSE_TILES = 100  # tiles of a rough map; they take seconds on two CPU cores
MIN_COARSE_RATIO = 6  # times as many tiles the fine map must have


def make_coarse_target(target: Target) -> Target | None:
    """The middle tiles of square blocks of the target's grid; None where it is small.

    Its grid are the blocks. They see each other as the spots of a coarse array, so the numbers
    are near those of the fine map and not equal to them.
    """
    grid = target.grid
    if target.kind is not TargetKind.GRID or grid is None or len(grid) < MIN_COARSE_RATIO * MAX_COARSE_TILES:
        return None
    side = _round_up_to_odd(int(np.ceil(np.sqrt(len(grid) / MAX_COARSE_TILES))))
    while True:
        middle = (grid.cells % side == side // 2).all(axis=1)
        if 0 < middle.sum() <= MAX_COARSE_TILES:
            break
        if not middle.any():
            return None
        side += 2
    blocks = grid.cells[middle] // side
    coarse = TileGrid(grid.pitch * side, grid.pitch_um * side, blocks)
    return Target(TargetKind.ARRAY, Spots(grid.centres[middle], blocks), coarse)


def match_coarse_rows(fine: TileGrid, coarse: TileGrid) -> NDArray[np.int64]:
    """(N,) which row of the coarse grid each fine cell lies in, -1 where in none."""
    side = round(coarse.pitch / fine.pitch)
    row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(coarse.cells)}
    blocks = (fine.cells // side).tolist()
    return np.array([row_of.get((x, y), -1) for x, y in blocks], np.int64)


def _round_up_to_odd(number: int) -> int:
    """The next odd number: only then a block has a tile in its middle."""
    return number | 1
