"""The tile grid of the gene lens: its circle, and cached values of each gene per tile."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ...inference.target import Target, TargetKind
from ...spatial.tile_grid import TileGrid
from ..layers.contrast_limits import WideningLimits


@dataclass(frozen=True)
class LensCircle:
    """Centre and radius in level-0 px."""

    x: float
    y: float
    radius: float

    def distances_to(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the distances (N,) of points (N, 2) from the centre."""
        return np.asarray(np.hypot(xy[:, 0] - self.x, xy[:, 1] - self.y))

    def centre_distance(self, other: LensCircle) -> float:
        """Return the distance of the two centres."""
        return float(np.hypot(self.x - other.x, self.y - other.y))

    def overlapping_cells(self, pitch: float, shape: tuple[int, int]) -> NDArray[np.int64]:
        """Return the cells that overlap the circle, nearest to its centre first.

        Parameters
        ----------
        pitch : float
            Level-0 px.
        shape : tuple of int
            (rows, columns) of the grid.

        Returns
        -------
        ndarray, (N, 2)
            (column, row).
        """
        axes = []
        for centre, count in ((self.x, shape[1]), (self.y, shape[0])):
            low, high = ((centre + sign * self.radius) // pitch for sign in (-1, 1))
            axes.append(np.arange(max(low, 0), min(high, count - 1) + 1))
        column, row = np.meshgrid(*axes)
        cells = np.stack([column.ravel(), row.ravel()], axis=1)
        centre_xy = np.array([self.x, self.y])
        nearest = np.clip(centre_xy, cells * pitch, (cells + 1) * pitch)
        cells = cells[self.distances_to(nearest) <= self.radius]
        order = np.argsort(self.distances_to((cells + 0.5) * pitch))
        return np.asarray(cells[order], np.int64)


MAX_RASTERS = 12  # the least recently shown one is dropped first

CellIndices = NDArray[np.int64]  # (N, 2) column and row


class GeneRaster:
    """The values of one gene over all cells (rows, columns).

    Only one thread at a time writes; any thread may read.

    Attributes
    ----------
    values : ndarray of float32
        NaN where unknown.
    looked_up : ndarray of bool
        Cells that were looked up in the cache.
    attempted : ndarray of bool
        Cells that were predicted or cannot be predicted.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full(shape, np.nan, np.float32)
        self.looked_up, self.attempted = np.zeros(shape, bool), np.zeros(shape, bool)
        self._limits = WideningLimits()

    def set_values(self, cells: CellIndices, values: NDArray[np.float32]) -> None:
        """Set the values (N,) of cells."""
        self.values[cells[:, 1], cells[:, 0]] = values
        self.attempted[cells[:, 1], cells[:, 0]] = True

    def mark_looked_up(self, cells: CellIndices) -> None:
        """Record that cells were looked up in the cache."""
        self.looked_up[cells[:, 1], cells[:, 0]] = True

    def unmark_looked_up(self, cells: CellIndices) -> None:
        """Look cells up again."""
        self.looked_up[cells[:, 1], cells[:, 0]] = False

    def mark_attempted(self, cells: CellIndices) -> None:
        """Record that cells are not to be predicted again."""
        self.attempted[cells[:, 1], cells[:, 0]] = True

    def contrast_limits(self) -> tuple[float, float]:
        """Return limits of all values; they never narrow."""
        return self._limits.update(self.values)

    def reset_lookups(self) -> None:
        """Look all cells without a value up again."""
        self.looked_up = np.isfinite(self.values)


class TileGridCache:
    """The cells of a grid over a slide and the rasters of the genes shown last.

    The cells are those of a map of the whole slide.

    Parameters
    ----------
    size : tuple of int
        (width, height) of the slide in level-0 px.
    pitch, pitch_um : float
        Distance of cells in level-0 px and in um.
    tissue : BaseGeometry
        In level-0 px.
    tissue_only : bool
        Predict only cells on the tissue.

    Attributes
    ----------
    tissue_mask : ndarray of bool, or None
        Cells (rows, columns) on the tissue; None before `compute_tissue_mask`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        pitch: float,
        pitch_um: float,
        tissue: BaseGeometry,
        tissue_only: bool,
    ) -> None:
        self.pitch, self.pitch_um = pitch, pitch_um
        width, height = size
        self.shape = _cell_count(height, pitch), _cell_count(width, pitch)
        self._tissue, self._tissue_only = tissue, tissue_only
        self.tissue_mask: NDArray[np.bool_] | None = None
        self._rasters: OrderedDict[str, GeneRaster] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether there are no cells to predict; False until this is known."""
        return self.tissue_mask is not None and not self._predictable_mask().any()

    def has_cells_to_look_up(self, raster: GeneRaster) -> bool:
        """Return whether `cells_to_look_up` may return cells."""
        return self.tissue_mask is None or bool((self.tissue_mask & ~raster.looked_up).any())

    def compute_tissue_mask(self) -> None:
        """Compute which cells are on the tissue. For worker threads."""
        if self.tissue_mask is None:
            row, column = np.indices(self.shape)
            centres = ((column + 0.5) * self.pitch, (row + 0.5) * self.pitch)
            self.tissue_mask = np.asarray(contains_xy(self._tissue, *centres))

    def get_raster(self, gene: str) -> GeneRaster:
        """Return the raster of a gene; created on the first call. For the GUI thread."""
        if gene not in self._rasters:
            self._rasters[gene] = GeneRaster(self.shape)
            while len(self._rasters) > MAX_RASTERS:
                self._rasters.popitem(last=False)
        self._rasters.move_to_end(gene)
        return self._rasters[gene]

    def reset_lookups(self) -> None:
        """Look the cells of all genes up again."""
        for raster in self._rasters.values():
            raster.reset_lookups()

    def make_target(self, cells: CellIndices) -> Target:
        """Return the prediction target of cells."""
        grid = TileGrid(self.pitch, self.pitch_um, cells)
        return Target(TargetKind.GRID, grid.to_spots(), grid)

    def value_at(self, raster: GeneRaster, x: float, y: float) -> float | None:
        """Return the value of the cell at (x, y) in level-0 px, if there is one."""
        row, column = int(y // self.pitch), int(x // self.pitch)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return None
        value = float(raster.values[row, column])
        return None if np.isnan(value) else value

    def cells_to_look_up(
        self, raster: GeneRaster, circle: LensCircle, max_cells: int
    ) -> CellIndices:
        """Return up to ``max_cells`` cells that were not looked up, nearest to the circle first."""
        if self.tissue_mask is None:
            return np.empty((0, 2), np.int64)
        # Cells off the tissue are never cached.
        row, column = np.nonzero(self.tissue_mask & ~raster.looked_up)
        cells = np.stack([column, row], axis=1).astype(np.int64)
        distance = circle.distances_to((cells + 0.5) * self.pitch)
        if len(cells) > max_cells:
            nearest = np.argpartition(distance, max_cells)[:max_cells]
            cells, distance = cells[nearest], distance[nearest]
        return cells[np.argsort(distance)]

    def cells_to_predict(self, raster: GeneRaster, circle: LensCircle) -> CellIndices:
        """Return the cells in the circle that are not predicted, nearest to its centre first.

        They are either all on the tissue or all off it, because cells off the tissue would
        become neighbours of those on it.
        """
        if self.tissue_mask is None:
            return np.empty((0, 2), np.int64)
        cells = circle.overlapping_cells(self.pitch, self.shape)
        column, row = cells.T
        pending = self._predictable_mask()[row, column] & ~raster.attempted[row, column]
        on_tissue = pending & self.tissue_mask[row, column]
        selected = on_tissue if on_tissue.any() else pending
        return np.asarray(cells[selected], np.int64)

    def _predictable_mask(self) -> NDArray[np.bool_]:
        assert self.tissue_mask is not None
        return self.tissue_mask if self._tissue_only else np.ones(self.shape, bool)


def _cell_count(length: int, pitch: float) -> int:
    """Number of cells whose centre is within the length; at least one."""
    return max(1, int(np.ceil(length / pitch - 0.5)))
