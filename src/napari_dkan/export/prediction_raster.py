"""Rasterize a prediction: one value per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.prediction import Prediction

PIXELS_PER_SPOT = 5  # pixels across a spot that is no tile of a grid
MAX_RASTER_PX = 4_000  # longest side of a picture of such spots


@dataclass(frozen=True, eq=False)
class PredictionRaster:
    """Which spot each pixel shows.

    rows : (H, W) int64, rows of the prediction, -1 where there is no spot.
    pitch : level-0 px per pixel. corner : (x, y) of the top left corner of the first pixel in
    level-0 px, where level-0 pixel i covers i to i + 1.
    """

    rows: NDArray[np.int64]
    pitch: float
    origin: tuple[float, float]

    def rasterize(self, spot_values: NDArray[np.floating]) -> NDArray[np.float32]:
        """(H, W) of one value per spot (N,); NaN where there is none."""
        padded = np.append(np.asarray(spot_values, np.float32), np.float32(np.nan))
        return np.asarray(padded[self.rows])

    @classmethod
    def from_prediction(cls, prediction: Prediction, mpp: float) -> PredictionRaster:
        """Of a grid its cells, of other spots discs of their diameter."""
        grid = prediction.target.grid
        if grid is not None:
            rows = np.full(grid.shape, -1, np.int64)
            column, row = (grid.cells - grid.first_cell).T
            rows[row, column] = np.arange(len(grid))
            x, y = (float(c) for c in grid.first_cell * grid.pitch)
            return cls(rows, grid.pitch, (x, y))
        return cls._from_discs(prediction.target.spots.xy, get_spot_diameter_um(prediction) / mpp)

    @classmethod
    def _from_discs(cls, xy: NDArray[np.float64], diameter: float) -> PredictionRaster:
        from scipy.spatial import cKDTree

        low, high = xy.min(axis=0) - diameter / 2, xy.max(axis=0) + diameter / 2
        pitch = max(diameter / PIXELS_PER_SPOT, float((high - low).max()) / MAX_RASTER_PX)
        wide, tall = (max(int(np.ceil(n)), 1) for n in (high - low) / pitch)
        x, y = np.meshgrid(np.arange(wide), np.arange(tall))
        centres = low + (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * pitch
        distance, nearest = cKDTree(xy).query(centres)
        rows = np.where(distance <= diameter / 2, nearest, -1).astype(np.int64)
        return cls(rows.reshape(tall, wide), pitch, (float(low[0]), float(low[1])))


def get_spot_diameter_um(prediction: Prediction) -> float:
    """Of spots in um: as it is known, else the side of what the network sees of each."""
    return prediction.target.spots.diameter_um or float(prediction.provenance["patch_um"])
