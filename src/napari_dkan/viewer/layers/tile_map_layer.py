"""The Image layer of a tile grid, drawn in blocks or smoothly; its values stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from PIL import Image as PillowImage

SMOOTH_NOTE = "smoothed between tiles"  # in the legend of a smooth map
# Raster px per side of a tile in a smooth map; odd, so that one is at its centre.
MAX_FACTOR, MIN_FACTOR = 9, 3
MAX_RASTER_PX = 600_000  # of a smooth map with more than `MIN_FACTOR`
MAX_SMOOTH_TILES = 1_000_000  # with gaps; a larger map is drawn in blocks


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

    data: Any  # napari's property, which has no type

    def __init__(self, data: NDArray[np.float32], **options: Any) -> None:
        self.tiles, self.factor = data, 1
        self._weights = TileWeights(np.isfinite(data), 1)
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

    def place(self, scale: tuple[float, float], translate: tuple[float, float]) -> None:
        """Set scale and translation of a layer with one pixel per tile, (y, x)."""
        self.scale = np.asarray(scale) / self.factor
        self.translate = np.asarray(translate) - self.scale * (self.factor - 1) / 2

    def set_tiles(self, tiles: NDArray[np.float32], smooth: bool, thumbnail: bool = True) -> None:
        """Draw values (rows, columns), smoothly or in blocks.

        Parameters
        ----------
        tiles : ndarray, (rows, columns)
        smooth : bool
        thumbnail : bool
            False where other limits follow, with which napari draws the thumbnail anyway.
        """
        factor = find_factor(tiles) if smooth else 1
        known = np.isfinite(tiles)
        if not self._weights.fits(known, factor):
            self._weights = TileWeights(known, factor)
        raster = self._weights.interpolate(tiles)
        self.tiles = tiles
        if raster.shape == self.data.shape and factor == self.factor:
            self.data[:] = raster
            self.refresh(extent=False, highlight=False, thumbnail=thumbnail)
            return
        scale, translate = self.tile_scale, self.tile_translate
        self.factor, self.data = factor, raster.copy() if raster is tiles else raster
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


def find_factor(tiles: NDArray[np.float32], max_px: int | None = None) -> int:
    """Return how many raster px a side of a tile has in a smooth map, of so many px at most."""
    if max_px is None and tiles.size > MAX_SMOOTH_TILES:
        return 1
    fitting = int(np.sqrt((max_px or MAX_RASTER_PX) / max(tiles.size, 1)))
    least = MIN_FACTOR if max_px is None else 1
    return max(least, min(MAX_FACTOR, fitting - 1 + fitting % 2))


class TileWeights:
    """Interpolates linearly between the centres of tiles that exist; the same for all genes.

    Parameters
    ----------
    known : ndarray, (rows, columns)
        Tiles that have a value.
    factor : int
        Odd number of raster px per side of a tile.
    """

    def __init__(self, known: NDArray[np.bool_], factor: int) -> None:
        self._known, self._factor = known, factor
        self._inverse_sums = np.empty((0, 0), np.float32)
        if factor > 1:
            is_drawn = np.repeat(np.repeat(known, factor, axis=0), factor, axis=1)
            sums = _enlarge(known.astype(np.float32), factor)
            self._inverse_sums = np.full(sums.shape, np.nan, np.float32)
            np.divide(1, sums, out=self._inverse_sums, where=is_drawn)

    def fits(self, known: NDArray[np.bool_], factor: int) -> bool:
        """Return whether these are the weights of other tiles, too."""
        return factor == self._factor and np.array_equal(known, self._known)

    def interpolate(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the raster (rows * factor, columns * factor) of tiles (rows, columns).

        At the centre of a tile it has its value. Next to a gap the tiles that exist count; gaps
        stay NaN.
        """
        if self._factor == 1:
            return tiles
        values = np.where(self._known, tiles, np.float32(0))
        return _enlarge(values, self._factor) * self._inverse_sums


def interpolate_tiles(tiles: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate tiles (rows, columns), NaN where there is no value; see `TileWeights`."""
    return TileWeights(np.isfinite(tiles), factor).interpolate(tiles)


def _enlarge(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate linearly; values beyond the outer centres are those of the outer centres."""
    rows, columns = values.shape
    image = PillowImage.fromarray(np.ascontiguousarray(values, np.float32))
    size = columns * factor, rows * factor
    return np.asarray(image.resize(size, PillowImage.Resampling.BILINEAR))
