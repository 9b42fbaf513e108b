"""Target: where a job predicts, and the checks that come before it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from ..spatial.grid import TileGrid, grid_from_region
from ..spatial.spots import Spots


class TargetKind(StrEnum):
    """What the global encoder sees as the slide (dkan-method.md, section 1)."""

    ARRAY = "array"  # the spots themselves, by their array coordinates
    GRID = "grid"  # the tissue tiles of the same grid
    POINTS = "points"  # the tissue at the training pitch, each point taking its nearest cell
    TILES = "tiles"  # the tiles of a feature file


@dataclass(frozen=True)
class Target:
    """Spots to predict; ``grid`` is set where they are the cells of one."""

    kind: TargetKind
    spots: Spots
    grid: TileGrid | None = None

    def __len__(self) -> int:
        return len(self.spots)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Target:
        return Target(self.kind, self.spots.take(rows), self.grid and self.grid.take(rows))


def target_from_spots(spots: Spots, width: int, height: int, source: str = "The spots") -> Target:
    """Spots of a file or a layer. Raises SpotsError when any lies off the slide."""
    if not len(spots):
        raise SpotsError(f"{source} holds no spots; add at least one.")
    x, y = spots.xy.T
    outside = int(((x < 0) | (y < 0) | (x >= width) | (y >= height)).sum())
    if outside:
        raise SpotsError(
            f"{source}: {outside} of {len(spots)} spots lie outside the slide "
            f"({width} x {height} px); positions must be level-0 pixels of this slide, x first."
        )
    return Target(TargetKind.POINTS if spots.array is None else TargetKind.ARRAY, spots)


def target_from_region(
    region: BaseGeometry,
    pitch_um: float,
    mpp: float,
    width: int,
    height: int,
    tissue: BaseGeometry | None = None,
) -> Target:
    """The grid tiles of a region; with ``tissue`` only those whose centre lies on it.

    Raises SpotsError when the region is empty, off the slide or without tissue.
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
            "'Tissue only' (--no-tissue-only) to predict there all the same."
        )
    inside = region if tissue is None else region.intersection(tissue)
    grid = grid_from_region(inside, pitch, pitch_um, width, height)
    if not len(grid):
        raise SpotsError("No tile of this region has its centre on the slide; draw it larger.")
    return Target(TargetKind.GRID, grid.to_spots(), grid)
