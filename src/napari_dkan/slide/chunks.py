"""A region put together from the tiles it touches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Chunks are read whole, so that neighbours share them, but larger ones in parts of this many px.
MAX_READ_PX = 2048


def group_small_chunks(chunk: int, min_px: int) -> int:
    """How many px of an axis to read at once, from its chunks: small ones in groups."""
    return min(chunk * max(1, min_px // chunk), MAX_READ_PX)


def assemble_region(
    x: int,
    y: int,
    width: int,
    height: int,
    chunk_size: tuple[int, int],
    read_tile: Callable[[int, int], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """The region (height, width, 3) from a grid of chunks of (width, height) px.

    tile(column, row) gives the pixels of one chunk, which may be cut at the level's edge but
    must cover the part of the region that lies in it.
    """
    out = np.empty((height, width, 3), np.uint8)
    wide, high = chunk_size
    for row in range(y // high, (y + height - 1) // high + 1):
        top, bottom = max(y, row * high), min(y + height, (row + 1) * high)
        for column in range(x // wide, (x + width - 1) // wide + 1):
            left, right = max(x, column * wide), min(x + width, (column + 1) * wide)
            out[top - y : bottom - y, left - x : right - x] = read_tile(column, row)[
                top - row * high : bottom - row * high, left - column * wide : right - column * wide
            ]
    return out
