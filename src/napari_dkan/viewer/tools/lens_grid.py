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
        """(N,) of points (N, 2) from the centre."""
        return np.asarray(np.hypot(xy[:, 0] - self.x, xy[:, 1] - self.y))

    def centre_distance(self, other: LensCircle) -> float:
        """Distance of the two centres."""
        return float(np.hypot(self.x - other.x, self.y - other.y))

    def overlapping_cells(self, pitch: float, shape: tuple[int, int]) -> NDArray[np.int64]:
        """(N, 2) column and row of the cells it touches, the nearest to its centre first.

        shape : (rows, columns) of the grid.
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


MAX_RASTERS = 12  # whose values are kept; what was shown longest ago goes first

CellIndices = NDArray[np.int64]


class GeneRaster:
    """One gene over all cells (rows, columns).

    values : float32, NaN where nothing is known. asked : what was predicted before was looked
    up. tried : predicted, or not to be had. Only one thread at a time writes; any may read.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full(shape, np.nan, np.float32)
        self.looked_up, self.attempted = np.zeros(shape, bool), np.zeros(shape, bool)
        self._limits = WideningLimits()

    def set_values(self, cells: CellIndices, values: NDArray[np.float32]) -> None:
        self.values[cells[:, 1], cells[:, 0]] = values
        self.attempted[cells[:, 1], cells[:, 0]] = True

    def mark_looked_up(self, cells: CellIndices) -> None:
        self.looked_up[cells[:, 1], cells[:, 0]] = True

    def unmark_looked_up(self, cells: CellIndices) -> None:
        self.looked_up[cells[:, 1], cells[:, 0]] = False

    def mark_attempted(self, cells: CellIndices) -> None:
        self.attempted[cells[:, 1], cells[:, 0]] = True

    def contrast_limits(self) -> tuple[float, float]:
        """Of all values so far; they only widen, so that colours do not flicker as tiles come."""
        return self._limits.update(self.values)

    def reset_lookups(self) -> None:
        """Elsewhere more may have been predicted by now."""
        self.looked_up = np.isfinite(self.values)


class TileGridCache:
    """The cells whose centre lies on the slide, as a job over all of it would have them.

    pitch : level-0 px between cells. tissue_only : the others are not predicted.
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
        self._tissue_mask: NDArray[np.bool_] | None = None
        self._rasters: OrderedDict[str, GeneRaster] = OrderedDict()

    @property
    def has_tissue_mask(self) -> bool:
        """Whether it is known which cells lie on the tissue."""
        return self._tissue_mask is not None

    @property
    def is_empty(self) -> bool:
        """There is nothing to look at; False until that is known."""
        return self._tissue_mask is not None and not self._predictable_mask().any()

    def has_cells_to_look_up(self, raster: GeneRaster) -> bool:
        return self._tissue_mask is None or bool((self._tissue_mask & ~raster.looked_up).any())

    def compute_tissue_mask(self) -> None:
        """Which cells lie on the tissue; takes a moment."""
        if self._tissue_mask is None:
            row, column = np.indices(self.shape)
            centres = ((column + 0.5) * self.pitch, (row + 0.5) * self.pitch)
            self._tissue_mask = np.asarray(contains_xy(self._tissue, *centres))

    def get_raster(self, gene: str) -> GeneRaster:
        """The gene's sheet, made when first asked for. Call it in the GUI thread."""
        if gene not in self._rasters:
            self._rasters[gene] = GeneRaster(self.shape)
            while len(self._rasters) > MAX_RASTERS:
                self._rasters.popitem(last=False)
        self._rasters.move_to_end(gene)
        return self._rasters[gene]

    def reset_lookups(self) -> None:
        for sheet in self._rasters.values():
            sheet.reset_lookups()

    def make_target(self, cells: CellIndices) -> Target:
        grid = TileGrid(self.pitch, self.pitch_um, cells)
        return Target(TargetKind.GRID, grid.to_spots(), grid)

    def value_at(self, raster: GeneRaster, x: float, y: float) -> float | None:
        """Of the cell at (x, y) in level-0 px; None where there is none."""
        row, column = int(y // self.pitch), int(x // self.pitch)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return None
        value = float(raster.values[row, column])
        return None if np.isnan(value) else value

    def cells_to_look_up(
        self, raster: GeneRaster, circle: LensCircle, max_cells: int
    ) -> CellIndices:
        """Up to ``most`` cells not looked up yet, those nearest to the circle first."""
        if self._tissue_mask is None:
            return np.empty((0, 2), np.int64)
        # what lies off the tissue is never kept
        row, column = np.nonzero(self._tissue_mask & ~raster.looked_up)
        cells = np.stack([column, row], axis=1).astype(np.int64)
        distance = circle.distances_to((cells + 0.5) * self.pitch)
        if len(cells) > max_cells:
            nearest = np.argpartition(distance, max_cells)[:max_cells]
            cells, distance = cells[nearest], distance[nearest]
        return cells[np.argsort(distance)]

    def cells_to_predict(self, raster: GeneRaster, circle: LensCircle) -> CellIndices:
        """Cells under the circle that are still to be predicted, nearest to its centre first.

        Never some on the tissue and some off it: what is off it would be seen by the others.
        """
        if self._tissue_mask is None:
            return np.empty((0, 2), np.int64)
        cells = circle.overlapping_cells(self.pitch, self.shape)
        column, row = cells.T
        open_ = self._predictable_mask()[row, column] & ~raster.attempted[row, column]
        on_tissue = open_ & self._tissue_mask[row, column]
        return cells[on_tissue if on_tissue.any() else open_]

    def _predictable_mask(self) -> NDArray[np.bool_]:
        assert self._tissue_mask is not None
        return self._tissue_mask if self._tissue_only else np.ones(self.shape, bool)


def _cell_count(length: int, pitch: float) -> int:
    """Cells whose centre lies within the length; one at least."""
    return max(1, int(np.ceil(length / pitch - 0.5)))
