"""Canonical positions of patches and of the neighborhood of a spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

POSITION_STEPS_PER_PX = 4096  # positions a level-0 px; far below what can be seen in pixels
_ROUNDING_TOLERANCE = (
    1e-4  # of a step: exact halves come in with dust of either sign and must fall one way
)

PatchKeys = NDArray[np.int64]


class PatchReader(Protocol):
    """What of a slide is needed here."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    def read_patch(
        self,
        x: float,
        y: float,
        side: float,
        px: int,
        on_resize: Callable[[float], None] | None = None,
    ) -> NDArray[np.uint8]: ...


def keys_from_centers(xy: NDArray[np.float64]) -> PatchKeys:
    """(..., 2) centres in level-0 px -> (..., 2) canonical positions."""
    return np.floor(np.asarray(xy) * POSITION_STEPS_PER_PX + 0.5 + _ROUNDING_TOLERANCE).astype(
        np.int64
    )


def centers_from_keys(keys: PatchKeys) -> NDArray[np.float64]:
    """(..., 2) canonical positions -> (..., 2) centres in level-0 px."""
    return np.asarray(keys / POSITION_STEPS_PER_PX)


def compute_neighbor_keys(xy: NDArray[np.float64], side: float, grid_size: int) -> PatchKeys:
    """(N, 2) spots -> (N, grid^2, 2) positions of the patches around each, row-major."""
    offset = (np.arange(grid_size) - grid_size // 2) * side
    x, y = np.meshgrid(offset, offset)
    return keys_from_centers(np.asarray(xy)[:, None] + np.stack([x.ravel(), y.ravel()], axis=1))


def compute_neighbor_masks(
    slide: PatchReader, xy: NDArray[np.float64], side: float, grid_size: int
) -> NDArray[np.bool_]:
    """(N, grid^2) bool, False where a patch around a spot is not wholly on the slide."""
    centres = np.asarray(xy)[:, None, :] + ((np.arange(grid_size) - grid_size // 2) * side)[:, None]
    inside = (centres - side / 2 >= 0) & (centres + side / 2 <= (slide.width, slide.height))
    mask = (inside[:, :, None, 1] & inside[:, None, :, 0]).reshape(len(xy), -1)
    mask[:, grid_size * grid_size // 2] = True  # attention needs a key even at the very edge
    return np.asarray(mask)


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


def read_spot_pixels(
    slide: PatchReader,
    x: float,
    y: float,
    side: float,
    grid_size: int,
    target_px: int,
    tile_px: int,
) -> SpotPixels:
    """Target patch and grid x grid neighbourhood; ``side`` is the patch in level-0 px.

    The neighbourhood is read as one window and cut: one read where 25 would touch the
    same tiles of the file again and again.
    """
    window = slide.read_patch(x, y, side * grid_size, tile_px * grid_size)
    tiles = (
        window.reshape(grid_size, tile_px, grid_size, tile_px, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(grid_size * grid_size, tile_px, tile_px, 3)
    )
    own = tiles[grid_size * grid_size // 2]
    target = own if target_px == tile_px else slide.read_patch(x, y, side, target_px)
    return SpotPixels(
        target, tiles, compute_neighbor_masks(slide, np.array([[x, y]]), side, grid_size)[0]
    )
