"""Hatching over the tiles that should not be relied on: they stay visible, and marked."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ..spatial.coordinates import swap_xy
from .overlay import GridOverlay, PredictionOverlay
from .slides import AXIS_LABELS, MICROMETER_UNITS

STRIPE_TILE_PX = 8  # of a tile's side in the picture of stripes
MAX_FINE_TILES = 40_000  # tiles; larger maps get coarser stripes, so that the picture stays small
STRIPE_RGBA = (25, 25, 25, 210)
BACKGROUND_RGBA = (225, 225, 225, 120)


class Hatching(Protocol):
    """Marks rows of one overlay's prediction in a layer of its own."""

    @property
    def layer(self) -> Layer: ...

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        """Mark these rows too."""
        ...


def make_hatching(overlay: PredictionOverlay) -> Hatching:
    """An empty hatching for an overlay; its layer is not in any viewer yet."""
    if isinstance(overlay, GridOverlay):
        return GridHatching(overlay)
    return SpotsHatching(overlay)


class GridHatching:
    """A veil with stripes, as one RGBA picture over the grid."""

    def __init__(self, overlay: GridOverlay) -> None:
        grid = overlay.prediction.target.grid
        assert grid is not None
        self._tile_indices = (grid.cells - grid.first_cell)[:, ::-1]  # row, column
        side = STRIPE_TILE_PX if len(grid) <= MAX_FINE_TILES else STRIPE_TILE_PX // 4
        rows, columns = grid.shape
        self._tile_pixels = np.zeros((rows, side, columns, side, 4), np.uint8)
        self._stripes = make_stripes(side)
        tile = np.asarray(overlay.layer.scale)
        self.layer = Image(
            self._rgba,
            rgb=True,
            name=_hatching_name(overlay),
            scale=tile / side,
            translate=overlay.layer.translate + tile * (0.5 / side - 0.5),
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            interpolation2d="nearest",
            blending="translucent",
            metadata={"napari-dkan": "hatching"},
        )

    @property
    def _rgba(self) -> NDArray[np.uint8]:
        rows, side, columns, _, _ = self._tile_pixels.shape
        return self._tile_pixels.reshape(rows * side, columns * side, 4)

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        row, column = self._tile_indices[rows].T
        self._tile_pixels[row, :, column] = self._stripes
        self.layer.data = self._rgba


class SpotsHatching:
    """A cross on each spot."""

    def __init__(self, overlay: PredictionOverlay) -> None:
        self._overlay = overlay
        self._rows = np.empty(0, np.int64)
        source = overlay.layer
        assert isinstance(source, Points)
        self.layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name=_hatching_name(overlay),
            symbol="x",
            size=0.7 * float(np.mean(source.size)) if len(source.data) else 10,
            scale=source.scale,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            face_color="#191919",
            border_color="white",
            border_width=0.08,
        )

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        self._rows = np.concatenate([self._rows, rows])
        source = self._overlay.layer
        assert isinstance(source, Points)
        self.layer.data = swap_xy(self._overlay.prediction.target.spots.xy[self._rows])
        if len(source.data):
            self.layer.size = 0.7 * float(np.mean(source.size))


def _hatching_name(overlay: PredictionOverlay) -> str:
    """Without the gene: tiles are as reliable for all of them."""
    return f"unreliable - {overlay.layer.name.partition(' - ')[2] or overlay.layer.name}"


def make_stripes(side: int) -> NDArray[np.uint8]:
    """(side, side, 4) a veil with diagonal stripes that go on from tile to tile."""
    y, x = np.mgrid[:side, :side]
    dark = (x + y) % side < max(1, side // 4)
    return np.where(dark[..., None], STRIPE_RGBA, BACKGROUND_RGBA).astype(np.uint8)
