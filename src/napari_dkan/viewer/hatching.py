"""Hatching over the tiles that should not be relied on: they stay visible, and marked."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ..spatial.coordinates import swap_xy
from .overlay import GridOverlay, Overlay
from .slides import AXES, UNITS

STRIPES_PX = 8  # of a tile's side in the picture of stripes
FEW = 40_000  # tiles; larger maps get coarser stripes, so that the picture stays small
STRIPE = (25, 25, 25, 210)
VEIL = (225, 225, 225, 120)


class Hatching(Protocol):
    """Marks rows of one overlay's prediction in a layer of its own."""

    @property
    def layer(self) -> Layer: ...

    def mark(self, rows: NDArray[np.int64]) -> None:
        """Mark these rows too."""
        ...


def hatching(overlay: Overlay) -> Hatching:
    """An empty hatching for an overlay; its layer is not in any viewer yet."""
    if isinstance(overlay, GridOverlay):
        return GridHatching(overlay)
    return SpotsHatching(overlay)


class GridHatching:
    """A veil with stripes, as one RGBA picture over the grid."""

    def __init__(self, overlay: GridOverlay) -> None:
        grid = overlay.prediction.target.grid
        assert grid is not None
        self._cells = (grid.cells - grid.corner)[:, ::-1]  # row, column
        side = STRIPES_PX if len(grid) <= FEW else STRIPES_PX // 4
        rows, columns = grid.shape
        self._tiles = np.zeros((rows, side, columns, side, 4), np.uint8)
        self._stripes = stripes(side)
        tile = np.asarray(overlay.layer.scale)
        self.layer = Image(
            self._picture,
            rgb=True,
            name=_name(overlay),
            scale=tile / side,
            translate=overlay.layer.translate + tile * (0.5 / side - 0.5),
            units=UNITS,
            axis_labels=AXES,
            interpolation2d="nearest",
            blending="translucent",
            metadata={"napari-dkan": "hatching"},
        )

    @property
    def _picture(self) -> NDArray[np.uint8]:
        rows, side, columns, _, _ = self._tiles.shape
        return self._tiles.reshape(rows * side, columns * side, 4)

    def mark(self, rows: NDArray[np.int64]) -> None:
        row, column = self._cells[rows].T
        self._tiles[row, :, column] = self._stripes
        self.layer.data = self._picture


class SpotsHatching:
    """A cross on each spot."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._rows = np.empty(0, np.int64)
        source = overlay.layer
        assert isinstance(source, Points)
        self.layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name=_name(overlay),
            symbol="x",
            size=0.7 * float(np.mean(source.size)) if len(source.data) else 10,
            scale=source.scale,
            units=UNITS,
            axis_labels=AXES,
            face_color="#191919",
            border_color="white",
            border_width=0.08,
        )

    def mark(self, rows: NDArray[np.int64]) -> None:
        self._rows = np.concatenate([self._rows, rows])
        source = self._overlay.layer
        assert isinstance(source, Points)
        self.layer.data = swap_xy(self._overlay.prediction.target.spots.xy[self._rows])
        if len(source.data):
            self.layer.size = 0.7 * float(np.mean(source.size))


def _name(overlay: Overlay) -> str:
    """Without the gene: tiles are as reliable for all of them."""
    return f"unreliable - {overlay.layer.name.partition(' - ')[2] or overlay.layer.name}"


def stripes(side: int) -> NDArray[np.uint8]:
    """(side, side, 4) a veil with diagonal stripes that go on from tile to tile."""
    y, x = np.mgrid[:side, :side]
    dark = (x + y) % side < max(1, side // 4)
    return np.where(dark[..., None], STRIPE, VEIL).astype(np.uint8)
