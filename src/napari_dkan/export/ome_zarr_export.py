"""Write predicted maps as an OME-Zarr image, one channel per gene.

Format: OME-Zarr 0.4 on Zarr 2 (ngff.openmicroscopy.org/0.4), which more programs read than 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_write import atomic_write_folder
from .prediction_raster import PredictionRaster
from .provenance_text import build_export_provenance, format_gene_label, select_symbols
from .saved_result import SavedResult

CHUNK_PX = 512
# Okabe and Ito's, told apart by colour-blind eyes; black left out
CHANNEL_COLORS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
DISPLAY_PERCENTILES = 2.0, 98.0


def write_ome_zarr(
    path: str | Path, result: SavedResult, genes: Sequence[str] | None = None
) -> Path:
    """A new folder with float32 values in their own scale, NaN where nothing is predicted.

    Its axes are c, y and x in um from the centre of the slide's first pixel, so that it lies on
    the slide in any program that heeds scale and translation. The first of the genes is shown.

    Raises OutputError when the path exists or cannot be written, SpotsError for an unknown gene.
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
    """How to show it: from the 2nd to the 98th percentile."""
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
