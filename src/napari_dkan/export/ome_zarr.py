"""Predicted maps as an OME-Zarr image, one channel per gene.

Format: OME-Zarr 0.4 on Zarr 2 (ngff.openmicroscopy.org/0.4), which more programs read than 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import folder_written_whole
from .account import account, chosen, column
from .raster import Raster
from .saved import Saved

CHUNK = 512
# Okabe and Ito's, told apart by colour-blind eyes; black left out
COLOURS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
PERCENTILES = 2.0, 98.0


def write_heatmap(path: str | Path, saved: Saved, genes: Sequence[str] | None = None) -> Path:
    """A new folder with float32 values in their own scale, NaN where nothing is predicted.

    Its axes are c, y and x in um from the centre of the slide's first pixel, so that it lies on
    the slide in any program that heeds scale and translation. The first of the genes is shown.

    Raises OutputError when the path exists or cannot be written, SpotsError for an unknown gene.
    """
    import zarr

    prediction, mpp = saved.prediction, saved.slide.mpp
    symbols = chosen(prediction, genes)
    raster = Raster.of(prediction, mpp)
    size = raster.rows.shape
    with folder_written_whole(path) as folder:
        group = zarr.create_group(folder, zarr_format=2, overwrite=True)
        array = group.create_array(
            "0",
            shape=(len(symbols), *size),
            chunks=(1, min(size[0], CHUNK), min(size[1], CHUNK)),
            dtype="float32",
            fill_value=np.nan,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        channels = []
        for i, gene in enumerate(symbols):
            values = raster.values(prediction.gene(gene))
            array[i] = values
            channels.append(_channel(column(prediction, gene), values, i))
        group.attrs.update(
            {
                "multiscales": [_image(saved, raster)],
                "omero": {"channels": channels, "rdefs": {"model": "color"}},
                "napari_dkan": account(saved, symbols),
            }
        )
    return Path(path)


def _image(saved: Saved, raster: Raster) -> dict[str, Any]:
    mpp = saved.slide.mpp
    x, y = ((c + raster.pitch / 2 - 0.5) * mpp for c in raster.corner)
    side = raster.pitch * mpp
    space = {"type": "space", "unit": "micrometer"}
    return {
        "version": "0.4",
        "name": f"{saved.slide.name} predicted",
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


def _channel(label: str, values: NDArray[np.float32], number: int) -> dict[str, Any]:
    """How to show it: from the 2nd to the 98th percentile."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        finite = np.zeros(1)
    start, end = (float(v) for v in np.percentile(finite, PERCENTILES))
    low, high = float(finite.min()), float(finite.max())
    if end - start < 1e-6:
        start, end = start - 0.05, start + 0.05
    return {
        "label": label,
        "color": COLOURS[number % len(COLOURS)],
        "active": number == 0,
        "coefficient": 1,
        "family": "linear",
        "inverted": False,
        "window": {"min": min(low, start), "max": max(high, end), "start": start, "end": end},
    }
