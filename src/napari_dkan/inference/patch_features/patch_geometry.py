"""Keys of patch positions, and the neighborhood of a spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

POSITION_STEPS_PER_PX = 4096  # a step of a key has no visible effect on pixels
_ROUNDING_TOLERANCE = 1e-4  # of a step: exact halves with rounding errors must get one key

PatchKeys = NDArray[np.int64]
Level0Bounds = tuple[float, float, float, float]  # x0, y0, x1, y1 in level-0 px


class PatchReader(Protocol):
    """A slide, or its stain-normalized view, whose patches can be read."""

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
    ) -> NDArray[np.uint8]:
        """See `Slide.read_patch`."""
        ...


def keys_from_centers(xy: NDArray[np.float64]) -> PatchKeys:
    """(..., 2) centers in level-0 px -> (..., 2) keys."""
    return np.floor(np.asarray(xy) * POSITION_STEPS_PER_PX + 0.5 + _ROUNDING_TOLERANCE).astype(
        np.int64
    )


def centers_from_keys(keys: PatchKeys) -> NDArray[np.float64]:
    """(..., 2) keys -> (..., 2) centers in level-0 px."""
    return np.asarray(keys / POSITION_STEPS_PER_PX)


def compute_neighbor_keys(xy: NDArray[np.float64], side: float, grid_size: int) -> PatchKeys:
    """(N, 2) centers of spots -> (N, grid_size^2, 2) keys of the patches around, row-major.

    ``side`` is the side of a patch in level-0 px.
    """
    offset = (np.arange(grid_size) - grid_size // 2) * side
    x, y = np.meshgrid(offset, offset)
    return keys_from_centers(np.asarray(xy)[:, None] + np.stack([x.ravel(), y.ravel()], axis=1))


def compute_neighbor_masks(
    slide: PatchReader, xy: NDArray[np.float64], side: float, grid_size: int
) -> NDArray[np.bool_]:
    """(N, grid_size^2) False where a patch around a spot is not completely on the slide."""
    offset = (np.arange(grid_size) - grid_size // 2) * side
    centers = np.asarray(xy)[:, None, :] + offset[:, None]
    inside = (centers - side / 2 >= 0) & (centers + side / 2 <= (slide.width, slide.height))
    mask = (inside[:, :, None, 1] & inside[:, None, :, 0]).reshape(len(xy), -1)
    mask[:, grid_size * grid_size // 2] = True  # attention needs at least one key
    return np.asarray(mask)


def split_into_tiles(pixels: NDArray[np.uint8], grid_size: int) -> NDArray[np.uint8]:
    """(n * T, n * T, 3) -> (n * n, T, T, 3) tiles, row-major; n is ``grid_size``."""
    px = len(pixels) // grid_size
    blocks = pixels.reshape(grid_size, px, grid_size, px, 3).swapaxes(1, 2)
    return blocks.reshape(grid_size * grid_size, px, px, 3)


@dataclass(frozen=True)
class SpotPixels:
    """Pixels of one spot.

    Attributes
    ----------
    target : ndarray
        (P, P, 3) uint8 patch centered on the spot.
    tiles : ndarray
        (K, T, T, 3) uint8 grid of patches around it (5 x 5 as published), row-major.
    mask : ndarray
        (K,) False where a patch is not on the slide; True for the spot's own.
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
    """Read the patch of a spot and its neighborhood.

    The neighborhood is read as one block, as separate reads would decode the same tiles of the
    file repeatedly.

    Parameters
    ----------
    side : float
        Side of a patch in level-0 px.
    """
    block = slide.read_patch(x, y, side * grid_size, tile_px * grid_size)
    tiles = split_into_tiles(block, grid_size)
    center = tiles[grid_size * grid_size // 2]
    target = center if target_px == tile_px else slide.read_patch(x, y, side, target_px)
    return SpotPixels(
        target, tiles, compute_neighbor_masks(slide, np.array([[x, y]]), side, grid_size)[0]
    )
