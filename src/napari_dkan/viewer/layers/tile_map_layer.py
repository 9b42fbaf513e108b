"""The Image layer of a tile grid, drawn in blocks or smoothly; its values stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

MAX_FACTOR = 9  # raster px per side of a tile in a smooth map; odd, so that one is at its centre
MAX_RASTER_PX = 600_000  # of a smooth map; larger ones take too long to draw
SMOOTH_NOTE = "smoothed between tiles"  # in the legend of a smooth map


class TileMapLayer(Image):  # type: ignore[misc]  # napari's layers have no types
    """One pixel per tile, or more in a smooth map.

    Only what is drawn is interpolated: the value under the cursor and what is saved are those of
    the tiles.

    Attributes
    ----------
    tiles : ndarray, (rows, columns)
        Values of the tiles, NaN where there is none.
    factor : int
        Raster px per side of a tile.
    """

    def __init__(self, data: NDArray[np.float32], **options: Any) -> None:
        self.tiles, self.factor = data, 1
        super().__init__(data, **options)

    @property
    def _type_string(self) -> str:
        return "image"  # napari names icons, menus and file types after the class

    @property
    def tile_scale(self) -> NDArray[np.float64]:
        """Scale of a layer with one pixel per tile, (y, x)."""
        return np.asarray(self.scale, float) * self.factor

    @property
    def tile_translate(self) -> NDArray[np.float64]:
        """Translation of a layer with one pixel per tile, (y, x)."""
        return np.asarray(self.translate, float) + np.asarray(self.scale) * (self.factor - 1) / 2

    def set_tiles(self, tiles: NDArray[np.float32], smooth: bool) -> None:
        """Draw values (rows, columns), smoothly or in blocks."""
        factor = find_factor(tiles) if smooth else 1
        scale, translate, is_other = self.tile_scale, self.tile_translate, factor != self.factor
        self.tiles, self.factor = tiles, factor
        self.data = interpolate_tiles(tiles, factor)
        if is_other:
            self.scale = scale / factor
            self.translate = translate - scale / factor * (factor - 1) / 2

    def set_smooth(self, smooth: bool) -> None:
        """Draw the same tiles smoothly or in blocks."""
        if (find_factor(self.tiles) if smooth else 1) != self.factor:
            self.set_tiles(self.tiles, smooth)

    def tile_at(self, world: tuple[float, ...]) -> tuple[int, int]:
        """Return the row and column of the tile at a world position (y, x)."""
        return self._tile_of(np.asarray(self.world_to_data(world)))

    def _tile_of(self, position: NDArray[np.float64]) -> tuple[int, int]:
        row, column = np.floor((position[-2:] + 0.5) / self.factor).astype(np.int64).tolist()
        return row, column

    def get_value(self, position: Any, *, world: bool = False, **options: Any) -> Any:
        """Return the value of the tile at a position; for napari's status bar."""
        if self.factor == 1:
            return super().get_value(position, world=world, **options)
        if not self.visible or position is None:
            return None
        data = np.asarray(self.world_to_data(position) if world else position, float)
        row, column = self._tile_of(data)
        rows, columns = self.tiles.shape
        return self.tiles[row, column] if 0 <= row < rows and 0 <= column < columns else None

    def as_layer_data_tuple(self) -> Any:
        """Return the tiles as an image layer; for writers and copies of the layer."""
        if self.factor == 1:
            return super().as_layer_data_tuple()
        _, state, kind = super().as_layer_data_tuple()
        state["scale"], state["translate"] = list(self.tile_scale), list(self.tile_translate)
        return self.tiles, state, kind


def find_factor(tiles: NDArray[np.float32], max_px: int = MAX_RASTER_PX) -> int:
    """Return how many raster px a side of a tile has in a smooth map of so many px."""
    fitting = int(np.sqrt(max_px / max(tiles.size, 1)))
    return max(1, min(MAX_FACTOR, fitting - 1 + fitting % 2))


def interpolate_tiles(tiles: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate linearly between the centres of tiles.

    Parameters
    ----------
    tiles : ndarray, (rows, columns)
        NaN where there is no value.
    factor : int
        Odd number of raster px per side of a tile.

    Returns
    -------
    ndarray, (rows * factor, columns * factor)
        At the centre of a tile its value. Next to a gap the tiles that exist count; gaps stay NaN.
    """
    if factor == 1:
        return tiles
    known = np.isfinite(tiles)
    sums, weights = np.where(known, tiles, np.float32(0)), known.astype(np.float32)
    for axis in (0, 1):
        sums, weights = (_interpolate_axis(a, factor, axis) for a in (sums, weights))
    is_drawn = np.repeat(np.repeat(known, factor, axis=0), factor, axis=1)
    result = np.full(sums.shape, np.nan, np.float32)
    np.divide(sums, weights, out=result, where=is_drawn)
    return result


def _interpolate_axis(values: NDArray[np.float32], factor: int, axis: int) -> NDArray[np.float32]:
    """Interpolate along one axis; values beyond the ends are those of the ends."""
    last = values.shape[axis] - 1
    position = ((np.arange((last + 1) * factor) + 0.5) / factor - 0.5).clip(0, last)
    low = np.floor(position).astype(np.int64)
    share = (position - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    first = values.take(low, axis=axis)
    second = values.take((low + 1).clip(0, last), axis=axis)
    return np.asarray(first * (1 - share) + second * share, np.float32)
