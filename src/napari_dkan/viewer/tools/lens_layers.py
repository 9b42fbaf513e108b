"""The napari layers of the gene lens: a small raster inside a ring."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ..layers.tile_map_layer import interpolate_tiles
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS, ViewerSlide
from ..session.viewer_session import ViewerSession
from .lens_grid import LensCircle

MAX_RASTER_PX = 128  # raster px per diameter of the lens
MAX_PX_PER_TILE = 12  # raster px per side of a tile
RING_WIDTH_PX = 2.5  # screen px
RING_COLOR = "#00b8d4"  # visible on glass, stain and maps


class LensLayers:
    """The layers of a lens, added above the slide and its maps; `remove` ends their use.

    Parameters
    ----------
    session : ViewerSession
    slide : ViewerSlide
    pitch : float
        Side of a tile in level-0 px.
    record : object
        Metadata of the layers.
    """

    def __init__(
        self, session: ViewerSession, slide: ViewerSlide, pitch: float, record: Any
    ) -> None:
        self._session, self._slide, self._pitch = session, slide, pitch
        self._origin_px = np.zeros(2, np.int64)  # row, column of the raster on the slide
        self._px_per_tile = 0  # raster px
        common = {
            "units": MICROMETER_UNITS,
            "axis_labels": AXIS_LABELS,
            "metadata": {METADATA_PREFIX: record},
        }
        self.raster_layer = Image(
            np.full((1, 1), np.nan, np.float32),
            name="predicted - lens",
            blending="translucent",
            interpolation2d="nearest",
            contrast_limits=(0, 1),
            **common,
        )
        self.ring_layer = Points(
            np.zeros((1, 2)),
            name="lens",
            scale=(slide.mpp, slide.mpp),
            face_color="transparent",
            border_color=RING_COLOR,
            **common,
        )
        below = [slide.layer, *(o.layer for o in session.overlays)]
        for layer in (self.ring_layer, self.raster_layer):
            session.layers.insert(layer, slide, above=below, listed=False)

    def remove(self) -> None:
        """Remove the layers from the viewer."""
        self._session.layers.remove(*self.layers)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Both layers."""
        return self.raster_layer, self.ring_layer

    def set_style(self, limits: tuple[float, float], colormap: str, opacity: float) -> None:
        """Set what differs; every change redraws the layer."""
        layer = self.raster_layer
        if tuple(layer.contrast_limits) != limits:
            layer.contrast_limits_range = limits
            layer.contrast_limits = limits
        if layer.colormap.name != colormap:
            layer.colormap = colormap
        if layer.opacity != opacity:
            layer.opacity = opacity

    def set_names(self, gene: str, kind: str) -> None:
        """Name both layers after a gene and the kind of its values."""
        self.raster_layer.name, self.ring_layer.name = (
            f"{gene} {kind} - lens",
            f"{gene} {kind} - lens, outline",
        )

    def draw(self, values: NDArray[np.float32], circle: LensCircle, smooth: bool) -> None:
        """Draw the values (rows, columns) of the grid inside the circle, smoothly or in blocks."""
        split = int(
            np.clip(MAX_RASTER_PX // (2 * circle.radius / self._pitch + 1), 1, MAX_PX_PER_TILE)
        )
        split -= 1 - split % 2  # a smooth raster has a pixel at the centre of each tile
        px = self._pitch / split
        diameter = int(np.ceil(2 * circle.radius / px)) + 1
        centre = np.array([circle.y, circle.x])
        low = np.floor((centre - circle.radius) / px).astype(np.int64)
        last = np.array(values.shape) * split  # the raster ends at the edge of the grid
        window = np.minimum(2 * diameter, last)
        start, stop = low.clip(0, last - 1), (low + diameter).clip(1, last)
        if split != self._px_per_tile or tuple(window) != self.raster_layer.data.shape:
            self._px_per_tile = split
            self._origin_px = (low - diameter // 2).clip(0, last - window)
            self._set_raster(np.full(window, np.nan, np.float32), px)
        elif (start < self._origin_px).any() or (stop > self._origin_px + window).any():
            self._origin_px = (low - diameter // 2).clip(0, last - window)
            self.raster_layer.translate = self._origin_world(px)

        rows, columns = (np.arange(a, b) for a, b in zip(start, stop, strict=True))
        inside = _split_tiles(values, rows, columns, split, smooth)
        squared = [((i + 0.5) * px - c) ** 2 for i, c in zip((rows, columns), centre, strict=True)]
        inside[squared[0][:, None] + squared[1][None] > circle.radius**2] = np.nan
        self.raster_layer.data[:] = np.nan
        (y, x), (end_y, end_x) = start - self._origin_px, stop - self._origin_px
        self.raster_layer.data[y:end_y, x:end_x] = inside
        _refresh_in_place(self.raster_layer)
        self._draw_ring(circle)

    def _set_raster(self, raster: NDArray[np.float32], px: float) -> None:
        self.raster_layer.data = raster
        self.raster_layer.scale = (px * self._slide.mpp,) * 2
        self.raster_layer.translate = self._origin_world(px)

    def _origin_world(self, px: float) -> NDArray[np.float64]:
        """World position of the centre of the first pixel of the raster."""
        return np.asarray((self._origin_px + 0.5) * px * self._slide.mpp)

    def _draw_ring(self, circle: LensCircle) -> None:
        ring, size = self.ring_layer, 2 * circle.radius
        if ring.size[0] != size:
            ring.size = size
        # A new width costs as much time as a move, so small changes are skipped.
        width = RING_WIDTH_PX / max(self._session.viewer.scene.camera.zoom, 1e-9)
        relative = float(np.clip(width / (size * self._slide.mpp), 0.002, 0.2))
        if not 0.8 < ring.border_width[0] / relative < 1.25:
            ring.border_width = relative
        ring.data[0] = circle.y, circle.x
        _refresh_in_place(ring)


def _split_tiles(
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    split: int,
    smooth: bool,
) -> NDArray[np.float32]:
    """Raster pixels (rows, columns) of tiles that have ``split`` pixels per side."""
    if not smooth:
        return np.asarray(values[rows[:, None] // split, columns[None] // split])
    top, left = (max(at[0] // split - 1, 0) for at in (rows, columns))
    part = values[top : rows[-1] // split + 2, left : columns[-1] // split + 2]  # with neighbours
    raster = interpolate_tiles(part, split)
    return np.asarray(raster[rows[:, None] - top * split, columns[None] - left * split])


def _refresh_in_place(layer: Image | Points) -> None:
    """Redraw after a change of the values in the layer's array."""
    layer.refresh(extent=False, thumbnail=False, highlight=False)
