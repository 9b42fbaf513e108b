"""Write predicted maps as an OME-Zarr image, one channel per gene.

Format: OME-Zarr 0.4 on Zarr 2 (ngff.openmicroscopy.org/0.4), which more programs read than 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_write import atomic_write_folder
from ..inference.prediction import DISPLAY_PERCENTILES, Prediction
from .saved_result import (
    SavedResult,
    build_export_provenance,
    format_gene_label,
    select_symbols,
)

CHUNK_PX = 512
# The color-blind safe palette of Okabe and Ito (2008) without black.
CHANNEL_COLORS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
PIXELS_PER_SPOT = 5  # across a spot that is not a tile of a grid
MAX_RASTER_PX = 4_000  # longer side of an image of such spots


@dataclass(frozen=True, eq=False)
class PredictionRaster:
    """The spot of each pixel of an image.

    Attributes
    ----------
    rows : ndarray
        (H, W) int64 rows of the prediction, -1 where there is no spot.
    pitch : float
        Level-0 px per pixel.
    origin : tuple of float
        (x, y) of the top left corner of the first pixel in level-0 px, where level-0 pixel i
        covers i to i + 1.
    """

    rows: NDArray[np.int64]
    pitch: float
    origin: tuple[float, float]

    def rasterize(self, spot_values: NDArray[np.floating]) -> NDArray[np.float32]:
        """(H, W) of one value per spot (N,), NaN where there is no spot."""
        padded = np.append(np.asarray(spot_values, np.float32), np.float32(np.nan))
        return np.asarray(padded[self.rows])

    @classmethod
    def from_prediction(cls, prediction: Prediction, mpp: float) -> PredictionRaster:
        """One pixel per cell of a grid; discs for other spots."""
        grid = prediction.target.grid
        if grid is not None:
            rows = np.full(grid.shape, -1, np.int64)
            column, row = (grid.cells - grid.first_cell).T
            rows[row, column] = np.arange(len(grid))
            x, y = (float(c) for c in grid.first_cell * grid.pitch)
            return cls(rows, grid.pitch, (x, y))
        return cls._from_discs(prediction.target.spots.xy, prediction.spot_diameter_um / mpp)

    @classmethod
    def _from_discs(cls, xy: NDArray[np.float64], diameter: float) -> PredictionRaster:
        from scipy.spatial import cKDTree

        low, high = xy.min(axis=0) - diameter / 2, xy.max(axis=0) + diameter / 2
        pitch = max(diameter / PIXELS_PER_SPOT, float((high - low).max()) / MAX_RASTER_PX)
        width, height = (max(int(np.ceil(n)), 1) for n in (high - low) / pitch)
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        centers = low + (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * pitch
        distance, nearest = cKDTree(xy).query(centers)
        rows = np.where(distance <= diameter / 2, nearest, -1).astype(np.int64)
        return cls(rows.reshape(height, width), pitch, (float(low[0]), float(low[1])))


def write_ome_zarr(
    path: str | Path, result: SavedResult, genes: Sequence[str] | None = None
) -> Path:
    """Write a new folder with float32 values on the label scale, NaN where not predicted.

    The axes are c, y and x in um from the center of the slide's first pixel. Programs that apply
    scale and translation align it with the slide. The first gene's channel is active.

    Raises
    ------
    OutputError
        When the path exists or cannot be written.
    SpotsError
        When a gene is not in the prediction.
    """
    import zarr

    prediction, mpp = result.prediction, result.slide_record.mpp
    symbols = select_symbols(prediction, genes)
    raster = PredictionRaster.from_prediction(prediction, mpp)
    size = raster.rows.shape
    with atomic_write_folder(path) as folder:
        group = zarr.create_group(folder, zarr_format=2, overwrite=True)
        array = group.create_array(
            "0",
            shape=(len(symbols), *size),
            chunks=(1, min(size[0], CHUNK_PX), min(size[1], CHUNK_PX)),
            dtype="float32",
            fill_value=np.nan,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        channels = []
        for i, gene in enumerate(symbols):
            values = raster.rasterize(prediction.get_gene_values(gene))
            array[i] = values
            channels.append(_build_channel(format_gene_label(prediction, gene), values, i))
        group.attrs.update(
            {
                "multiscales": [_build_multiscale(result, raster)],
                "omero": {"channels": channels, "rdefs": {"model": "color"}},
                "napari_dkan": build_export_provenance(result, symbols),
            }
        )
    return Path(path)


def _build_multiscale(result: SavedResult, raster: PredictionRaster) -> dict[str, Any]:
    mpp = result.slide_record.mpp
    x, y = ((c + raster.pitch / 2 - 0.5) * mpp for c in raster.origin)
    side = raster.pitch * mpp
    space = {"type": "space", "unit": "micrometer"}
    return {
        "version": "0.4",
        "name": f"{result.slide_record.name} predicted",
        "axes": [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, side, side]},
                    {"type": "translation", "translation": [0.0, y, x]},
                ],
            }
        ],
    }


def _build_channel(label: str, values: NDArray[np.float32], index: int) -> dict[str, Any]:
    """Display settings with limits at the percentiles 2 and 98."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        finite = np.zeros(1)
    start, end = (float(v) for v in np.percentile(finite, DISPLAY_PERCENTILES))
    low, high = float(finite.min()), float(finite.max())
    if end - start < 1e-6:
        start, end = start - 0.05, start + 0.05
    return {
        "label": label,
        "color": CHANNEL_COLORS[index % len(CHANNEL_COLORS)],
        "active": index == 0,
        "coefficient": 1,
        "family": "linear",
        "inverted": False,
        "window": {"min": min(low, start), "max": max(high, end), "start": start, "end": end},
    }
