"""Ready features: the tiles of a feature file that fits a slide and a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ...errors import SpotsError
from ...spatial.grid import TileGrid
from ...spatial.spots import Spots
from ..patches import PatchKeys, keys_from_centers
from ..rows import pack_keys
from ..target import TargetKind, Target
from .tile_file import TileFeatureFile

Level0Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class PrecomputedFeatures:
    """Features by position, of tiles that lie as their file has them.

    side : of a tile in level-0 px. mpp : of the slide.
    alone : there are no weights to encode anything else with, so other places cannot be had and
        neighbours that the file lacks are masked as those off the slide are.
    note : one sentence for the person when something is to be looked at, else "".
    """

    feature_file: TileFeatureFile
    mpp: float
    lacks_encoder: bool
    note: str = ""
    xy: NDArray[np.float64] = field(init=False, repr=False)
    cells: NDArray[np.int64] = field(init=False, repr=False)
    _row_by_key: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Tiles of several pieces of tissue may lie on grids of their own; of two that share most
        # of their place the first one counts.
        cells = np.floor(self.feature_file.centers / self.feature_file.tile_side_px).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        first = first[np.lexsort((cells[first, 0], cells[first, 1]))]
        object.__setattr__(self, "xy", self.feature_file.centers[first])
        object.__setattr__(self, "cells", cells[first])
        keys = pack_keys(keys_from_centers(self.feature_file.centers))
        rows: dict[int, int] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, row)
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def tile_side_px(self) -> float:
        return self.feature_file.tile_side_px

    def contains(self, keys: PatchKeys) -> NDArray[np.bool_]:
        """(...,) which of the positions (..., 2) are tiles of the file."""
        flat = keys.reshape(-1, 2)
        found = np.fromiter((k in self._row_by_key for k in pack_keys(flat)), bool, len(flat))
        return found.reshape(keys.shape[:-1])

    def get_features(self, keys: PatchKeys) -> NDArray[np.float32]:
        """(M, d) features of positions (M, 2) that are all there. Raises SpotsError."""
        return self.feature_file.read_features(np.array([self._row_by_key[k] for k in pack_keys(keys)], np.int64))

    def select_tiles(self, bounds: Level0Bounds) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Centres (M, 2) and cells (M, 2) of the tiles whose centre lies in (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = bounds
        x, y = self.xy.T
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return self.xy[inside], self.cells[inside]

    @cached_property
    def tile_grid(self) -> TileGrid | None:
        """The grid that all tiles lie on; None where they lie on several, or beside it."""
        whole = TileGrid(self.tile_side_px, self.tile_side_px * self.mpp, self.cells)
        return whole if np.array_equal(whole.centres, self.xy) else None

    def target_from_region(self, region: BaseGeometry | None = None) -> Target:
        """The file's tiles, with a region (level-0 px) those whose centre lies in it.

        Raises SpotsError when there is none.
        """
        rows = np.arange(len(self.xy))
        if region is not None:
            rows = np.flatnonzero(shapely.contains_xy(region, *self.xy.T))
        if not len(rows):
            raise SpotsError(
                f"None of the tiles in {self.feature_file.path.name} lies in this region; draw it where "
                "the file has tiles."
            )
        return self._target_from_rows(rows)

    def target_at_point(self, x: float, y: float) -> Target:
        """The tile under a point (level-0 px). Raises SpotsError when there is none."""
        beside = np.abs(self.xy - (x, y)).max(axis=1)
        nearest = int(beside.argmin())
        if beside[nearest] > self.tile_side_px / 2:
            raise SpotsError(f"{self.feature_file.path.name} has no tile there; click where it has some.")
        return self._target_from_rows(np.array([nearest]))

    def _target_from_rows(self, rows: NDArray[np.int64]) -> Target:
        pitch_um = self.tile_side_px * self.mpp
        if self.tile_grid is not None:
            grid = self.tile_grid.take(rows)
            return Target(TargetKind.TILES, grid.to_spots(), grid)
        cells = self.cells[rows]
        names = tuple(f"{x}x{y}" for x, y in cells)
        return Target(TargetKind.TILES, Spots(self.xy[rows], cells, names, None, pitch_um))

    def to_provenance(self) -> dict[str, Any]:
        """For the provenance of what is predicted from them."""
        return {
            "file": self.feature_file.path.name,
            "encoder": self.feature_file.encoder_name or "not stated",
            "tiles": len(self.xy),
            "tile_px": self.tile_side_px,
        }
