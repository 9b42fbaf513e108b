"""A regular grid of square tiles over a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from .spots import Spots


@dataclass(frozen=True)
class TileGrid:
    """Cells of a grid that starts at the corner of the slide.

    So cell (i, j) has the same position in every job on the slide, maps of two regions fit
    together and a cached feature stays valid.

    Attributes
    ----------
    pitch
        Level-0 px between the centres of two cells.
    pitch_um
        The same in micrometres.
    cells
        (N, 2) int64, unique (column, row) of each cell.
    """

    pitch: float
    pitch_um: float
    cells: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Cell centres (N, 2) in level-0 px (x, y)."""
        return np.asarray((self.cells + 0.5) * self.pitch, dtype=np.float64)

    @property
    def first_cell(self) -> NDArray[np.int64]:
        """(column, row) of the first cell of the bounding raster."""
        first: NDArray[np.int64] = self.cells.min(axis=0)
        return first

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the bounding raster."""
        columns, rows = self.cells.max(axis=0) - self.first_cell + 1
        return int(rows), int(columns)

    def to_spots(self, diameter_um: float | None = None) -> Spots:
        """Return the cells as spots named ``COLUMNxROW``."""
        names = tuple(f"{x}x{y}" for x, y in self.cells)
        return Spots(self.centres, self.cells, names, diameter_um, self.pitch_um)

    def take(self, rows: NDArray[Any]) -> TileGrid:
        """Return the cells of these rows (indices or a mask)."""
        return TileGrid(self.pitch, self.pitch_um, self.cells[rows])

    def to_raster(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return an image (rows, columns) of one value per cell, NaN where there is no cell."""
        image = np.full(self.shape, np.nan, dtype=np.float32)
        column, row = (self.cells - self.first_cell).T
        image[row, column] = values
        return image


def cells_in_box(
    bounds: tuple[float, float, float, float], pitch: float, width: int, height: int
) -> NDArray[np.int64]:
    """Return cells (N, 2) whose centre is in (x0, y0, x1, y1) and on the slide, row by row."""
    x0, y0, x1, y1 = bounds
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    columns = np.arange(np.ceil(x0 / pitch - 0.5), np.ceil(x1 / pitch - 0.5))
    rows = np.arange(np.ceil(y0 / pitch - 0.5), np.ceil(y1 / pitch - 0.5))
    x, y = np.meshgrid(columns, rows)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)


def grid_from_region(
    region: BaseGeometry, pitch: float, pitch_um: float, width: int, height: int
) -> TileGrid:
    """Create the grid of cells whose centre is in a region (level-0 px) and on the slide.

    A region too small to contain a centre gets the cell under its representative point, so every
    drawn region gives a prediction.
    """
    cells = np.empty((0, 2), np.int64)
    if not region.is_empty:
        cells = cells_in_box(region.bounds, pitch, width, height)
        centres = (cells + 0.5) * pitch
        cells = cells[contains_xy(region, centres[:, 0], centres[:, 1])]
    if not len(cells) and not region.is_empty:
        point = region.representative_point()
        if 0 <= point.x < width and 0 <= point.y < height:
            cells = np.floor(np.array([[point.x, point.y]]) / pitch).astype(np.int64)
    return TileGrid(pitch, pitch_um, cells)
