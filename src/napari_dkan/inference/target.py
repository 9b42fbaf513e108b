"""Prediction targets: spots, grid tiles or feature-file tiles, and coarse previews of grids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from ..slide.scan_area import ScanArea
from ..spatial.spots import Spots
from ..spatial.tile_grid import TileGrid, grid_from_region

GLASS_OPTION = "open the slide with --whole-glass (whole_glass=True)"


class TargetKind(StrEnum):
    """The tiles of the global encoder's context (docs/method.md, section 1)."""

    ARRAY = "array"  # the spots, by their array coordinates
    GRID = "grid"  # the tissue tiles of the same grid
    POINTS = "points"  # the tissue at the training pitch; each point replaces its nearest cell
    TILES = "tiles"  # the tiles of a feature file


@dataclass(frozen=True)
class Target:
    """Spots to predict, and their grid where they are the cells of one."""

    kind: TargetKind
    spots: Spots
    grid: TileGrid | None = None

    def __len__(self) -> int:
        return len(self.spots)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Target:
        """Select rows by indices or a mask."""
        return Target(self.kind, self.spots.take(rows), self.grid and self.grid.take(rows))


def target_from_spots(
    spots: Spots,
    width: int,
    height: int,
    source: str = "The spots",
    scan_area: ScanArea | None = None,
    glass_advice: str = GLASS_OPTION,
) -> Target:
    """Make a target of the spots of a file or a layer.

    Parameters
    ----------
    width, height : int
        Size of the slide in level-0 px.
    source : str
        Start of the error messages.
    scan_area : ScanArea, optional
        Of the slide, to tell spots that count from the corner of the glass.
    glass_advice : str
        What to do about them, in words of the caller.

    Raises
    ------
    SpotsError
        When there are no spots or some are off the slide.
    """
    if not len(spots):
        raise SpotsError(f"{source} holds no spots; add at least one.")
    x, y = spots.xy.T
    outside = int(((x < 0) | (y < 0) | (x >= width) | (y >= height)).sum())
    if outside:
        advice = "positions must be level-0 pixels of this slide, x first"
        if scan_area is not None and scan_area.fits_from_glass(spots.xy):
            advice = f"they fit if they count from the corner of the glass: {glass_advice}"
        raise SpotsError(
            f"{source}: {outside} of {len(spots)} spots lie outside the slide "
            f"({width} x {height} px); {advice}."
        )
    return Target(TargetKind.POINTS if spots.array_coords is None else TargetKind.ARRAY, spots)


def target_from_region(
    region: BaseGeometry,
    pitch_um: float,
    mpp: float,
    width: int,
    height: int,
    tissue: BaseGeometry | None = None,
) -> Target:
    """Make a target of the grid tiles of a region.

    Parameters
    ----------
    region : BaseGeometry
        In level-0 px.
    width, height : int
        Size of the slide in level-0 px.
    tissue : BaseGeometry, optional
        Keeps only tiles whose center is inside it.

    Raises
    ------
    SpotsError
        When the region is empty, off the slide or without tissue.
    """
    pitch = pitch_um / mpp
    if region.is_empty or region.area == 0:
        raise SpotsError("The region is empty; draw a polygon, a rectangle or an ellipse.")
    if not region.intersects(box(0, 0, width, height)):
        raise SpotsError(
            f"The region lies outside the slide ({width} x {height} px); draw it on the tissue."
        )
    if tissue is not None and not tissue.intersects(region):
        raise SpotsError(
            "There is no tissue in this region; draw it on the section, or switch off "
            "'Tissue only' to predict there all the same."
        )
    inside = region if tissue is None else region.intersection(tissue)
    grid = grid_from_region(inside, pitch, pitch_um, width, height)
    if not len(grid):
        raise SpotsError("No tile of this region has its centre on the slide; draw it larger.")
    return Target(TargetKind.GRID, grid.to_spots(), grid)


def merge_grid_targets(first: Target, second: Target) -> tuple[Target, NDArray[np.int64]] | None:
    """Combine the tiles of two targets on one grid.

    Returns
    -------
    tuple or None
        The target with all tiles, those of the first one first, and the rows (N,) of the second
        one's tiles in it. None where the two do not lie on the same grid.
    """
    one, two = first.grid, second.grid
    if one is None or two is None or {first.kind, second.kind} != {TargetKind.GRID}:
        return None
    if not math.isclose(one.pitch, two.pitch, rel_tol=1e-9):
        return None
    row_by_cell = {(x, y): i for i, (x, y) in enumerate(one.cells.tolist())}
    rows = np.array(
        [row_by_cell.setdefault((x, y), len(row_by_cell)) for x, y in two.cells.tolist()], np.int64
    )
    cells = np.concatenate([one.cells, two.cells[rows >= len(one)]])
    grid = TileGrid(one.pitch, one.pitch_um, cells)
    return Target(TargetKind.GRID, grid.to_spots(), grid), rows


MAX_COARSE_TILES = 100  # predicted in seconds on two CPU cores
MIN_COARSE_RATIO = 6  # of the tiles of the grid to those of its preview


def make_coarse_target(target: Target) -> Target | None:
    """Make a preview of a grid from the middle tiles of its square blocks; None if it is small.

    The preview's grid consists of the blocks. Its context is a coarse array of spots, so that its
    values are close to those of the grid but not equal.
    """
    grid = target.grid
    if (
        target.kind is not TargetKind.GRID
        or grid is None
        or len(grid) < MIN_COARSE_RATIO * MAX_COARSE_TILES
    ):
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
    """(N,) row of the coarse grid that contains each fine cell, -1 where there is none."""
    side = round(coarse.pitch / fine.pitch)
    row_by_cell = {(int(x), int(y)): i for i, (x, y) in enumerate(coarse.cells)}
    blocks = (fine.cells // side).tolist()
    return np.array([row_by_cell.get((x, y), -1) for x, y in blocks], np.int64)


def _round_up_to_odd(number: int) -> int:
    """Only blocks of an odd side have a middle tile."""
    return number | 1
