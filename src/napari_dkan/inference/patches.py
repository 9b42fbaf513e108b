"""From a spot on a slide to the pixels the network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Squares(Protocol):
    """What of a slide is needed here."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    def read_square(self, x: float, y: float, side: float, px: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class SpotPixels:
    """Pixels of one spot.

    target : (P, P, 3) uint8, the patch centred on the spot.
    tiles : (K, T, T, 3) uint8, the grid x grid patches around it (5x5 as published), row-major.
    mask : (K,) bool, False where a patch leaves the slide; the spot's own is always True.
    """

    target: NDArray[np.uint8]
    tiles: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def read_tile(slide: Squares, x: float, y: float, side: float, px: int) -> NDArray[np.uint8]:
    """(px, px, 3) patch of ``side`` level-0 px centred on (x, y)."""
    return slide.read_square(x, y, side, px)


def read_spot(
    slide: Squares, x: float, y: float, side: float, grid: int, target_px: int, tile_px: int
) -> SpotPixels:
    """Target patch and grid x grid neighbourhood; ``side`` is the patch in level-0 px.

    The neighbourhood is read as one window and cut: one read where 25 would touch the
    same tiles of the file again and again.
    """
    window = slide.read_square(x, y, side * grid, tile_px * grid)
    tiles = (
        window.reshape(grid, tile_px, grid, tile_px, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(grid * grid, tile_px, tile_px, 3)
    )
    own = tiles[grid * grid // 2]
    target = own if target_px == tile_px else slide.read_square(x, y, side, target_px)
    return SpotPixels(target, tiles, neighbour_mask(slide, x, y, side, grid))


def neighbour_mask(slide: Squares, x: float, y: float, side: float, grid: int) -> NDArray[np.bool_]:
    """(K,) bool, False where a patch of the grid is not wholly on the slide."""
    offset = (np.arange(grid) - grid // 2) * side
    inside_x = (x + offset - side / 2 >= 0) & (x + offset + side / 2 <= slide.width)
    inside_y = (y + offset - side / 2 >= 0) & (y + offset + side / 2 <= slide.height)
    mask = (inside_y[:, None] & inside_x[None, :]).ravel()
    mask[grid * grid // 2] = True  # attention needs a key even at the very edge
    return mask
