"""Layers of values: a tile grid as an Image, spots as Points, and their colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components.overlays import ColorBarOverlay
from napari.layers import Image, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from ...spatial.coordinates import swap_xy
from ...spatial.tile_grid import TileGrid
from ..session.slide_layer import AXIS_LABELS, MICROMETER_UNITS
from .tile_map_layer import TileMapLayer

VALUE_COLUMN = "value"  # the column of a Points layer's features that is coloured
GENE_COLUMN = "gene"
DEFAULT_DIAMETER_UM = 100.0  # of spots without a stated diameter
COLOR_BAR_SIZE, COLOR_BAR_FONT_SIZE = (16, 100), 8


def make_grid_layer(grid: TileGrid, mpp: float, name: str, **options: Any) -> TileMapLayer:
    """Return an Image layer with one pixel per tile, NaN everywhere.

    Parameters
    ----------
    grid : TileGrid
        In level-0 px.
    mpp : float
        um per level-0 px.
    name : str
    **options
        Further arguments of the layer.
    """
    return TileMapLayer(
        np.full(grid.shape, np.nan, np.float32),
        name=name,
        **grid_transform(grid, mpp),
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        blending="translucent",
        interpolation2d="nearest",
        **options,
    )


def grid_transform(grid: TileGrid, mpp: float, factor: int = 1) -> dict[str, Any]:
    """Return scale and translate of a layer with so many pixels per side of a tile."""
    pitch = grid.pitch * mpp
    return {
        "scale": (pitch / factor, pitch / factor),
        "translate": swap_xy((grid.first_cell + 0.5 / factor) * pitch),
    }


def make_spots_layer(
    xy: NDArray[np.floating], mpp: float, name: str, diameter_um: float | None, **options: Any
) -> Points:
    """Return a Points layer.

    Parameters
    ----------
    xy : ndarray, (N, 2)
        Level-0 px.
    mpp : float
        um per level-0 px.
    name : str
    diameter_um : float or None
        None for the default diameter.
    **options
        Further arguments of the layer.
    """
    size = (diameter_um or DEFAULT_DIAMETER_UM) / mpp
    layer = Points(
        swap_xy(xy),
        ndim=2,
        name=name,
        size=size,
        scale=(mpp, mpp),
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        **options,
    )
    return layer


def color_grid(layer: Image, limits: tuple[float, float], colormap: str | Colormap) -> None:
    """Set limits and colormap of a grid layer.

    The colour bar is redrawn on every change, so only what differs is set.
    """
    low, high = layer.contrast_limits_range
    if limits[0] < low or limits[1] > high:
        with layer.events.contrast_limits.blocker():  # the limits follow
            layer.contrast_limits_range = min(low, limits[0]), max(high, limits[1])
    if tuple(layer.contrast_limits) != limits:
        layer.contrast_limits = limits
    if layer.colormap.name != (colormap if isinstance(colormap, str) else colormap.name):
        layer.colormap = colormap


def color_spots(
    layer: Points,
    values: NDArray[np.floating],
    limits: tuple[float, float],
    colormap: str | Colormap,
    gene: str | None = None,
) -> None:
    """Colour a Points layer by values (N,) of its points.

    Parameters
    ----------
    layer : Points
    values : ndarray, (N,)
    limits : tuple of float
    colormap : str or Colormap
    gene : str or None
        Written to the layer's features beside the values.
    """
    features: dict[str, Any] = {VALUE_COLUMN: np.asarray(values, np.float32)}
    if gene is not None:
        features[GENE_COLUMN] = np.repeat(gene, len(values))
    layer.features = features
    if not len(values):
        return
    # napari divides by the range of the values, which is empty for a single spot, unless limits
    # are set before the colours.
    layer.face_contrast_limits = limits
    layer.face_color = VALUE_COLUMN
    layer.face_colormap = colormap
    layer.face_contrast_limits = limits


def shrink_color_bar(bar: ColorBarOverlay) -> None:
    """Make a colour bar small enough for a cell of the grid."""
    bar.size, bar.font_size = COLOR_BAR_SIZE, COLOR_BAR_FONT_SIZE
