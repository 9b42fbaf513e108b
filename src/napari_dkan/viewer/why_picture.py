"""Why here, on the canvas: the blocks of the clicked patch and, around it, its neighbour tiles."""

from __future__ import annotations

import numpy as np
from napari.layers import Image, Points
from napari.utils import Colormap
from numpy.typing import NDArray

from .overlay import SpotsOverlay
from .session import ViewerSlide, ViewerSession
from .slides import AXIS_LABELS, MICROMETER_UNITS

TILE_PX = 56  # raster px a tile
GAP_PX, OUTLINE_PX = 2, 4  # raster px: left free around a neighbour tile, and the width of its outline
INNER_STRENGTH = 0.45  # of a neighbour's strength, within its outline
# Orange gives, blue takes: told apart by every kind of colour vision, and from pink tissue.
DIVERGING_COLORMAP = Colormap(
    [[0.0, 0.28, 0.75, 0.9], [0.0, 0.45, 0.85, 0.0], [0.95, 0.5, 0.0, 0.0], [0.9, 0.35, 0.0, 0.9]],
    controls=[0, 0.5, 0.5, 1],
    name="dkan why",
)


class OcclusionLayer:
    """One layer, over the grid x grid patches around a place (x, y); side : of a patch, level-0 px.

    Predicted spots under it are hidden meanwhile: they would hide the tissue it is about.
    """

    def __init__(self, session: ViewerSession, slide: ViewerSlide, record: object) -> None:
        self._session, self._slide = session, slide
        self._extent: tuple[float, float, float] | None = None  # x, y, half its side
        self._hidden_layers: list[Points] = []
        self.layer = Image(
            np.full((1, 1), np.nan, np.float32),
            name="why here",
            blending="translucent",
            interpolation2d="nearest",
            contrast_limits=(-1, 1),
            colormap=DIVERGING_COLORMAP,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={"napari-dkan": record},
        )
        session.attach_layer(slide, self.layer)
        layers, selected = session.viewer.layers, set(session.viewer.layers.selection)
        layers.append(self.layer)
        layers.selection = selected

    @property
    def is_in_viewer(self) -> bool:
        return self.layer in self._session.viewer.layers

    def draw(
        self,
        name: str,
        place: tuple[float, float, float],
        tiles: NDArray[np.float32],
        blocks: NDArray[np.float32],
    ) -> None:
        """place : x, y and the patch's side; tiles (grid, grid) and blocks (n, n) as in `Why`."""
        x, y, side = place
        layer, px = self.layer, side * self._slide.mpp / TILE_PX
        half = len(tiles) * side / 2
        layer.data = make_occlusion_raster(tiles, blocks)
        layer.scale = (px, px)
        layer.translate = [(c - half) * self._slide.mpp + px / 2 for c in (y, x)]
        layer.name = name
        self._extent = (x, y, half)
        self.hide_spots_below()

    def hide_spots_below(self) -> None:
        """Hide what was predicted in spots there, until the picture is taken away."""
        if self._extent is None:
            return
        x, y, half = self._extent
        for layer in self._spot_layers():
            under = (np.abs(layer.data - (y, x)) < half).all(axis=1)
            if layer.visible and under.any():
                layer.visible = False
                self._hidden_layers.append(layer)

    def remove(self) -> None:
        layers = self._session.viewer.layers
        self._extent = None
        for layer in self._hidden_layers:
            layer.visible = True
        self._hidden_layers = []
        if self.is_in_viewer:
            layers.remove(self.layer)

    def _spot_layers(self) -> list[Points]:
        return [o.layer for o in self._session.overlays if isinstance(o, SpotsOverlay)]


def make_occlusion_raster(tiles: NDArray[np.float32], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(grid * TILE, grid * TILE) within -1..1, NaN where nothing is known: the strongest block of
    the patch and the strongest neighbour are 1 or -1, each among its own kind."""
    each = _normalize(tiles)
    full = np.repeat(np.repeat(each, TILE_PX, axis=0), TILE_PX, axis=1)
    within = np.arange(len(full)) % TILE_PX
    margin = np.minimum(within, TILE_PX - 1 - within)
    margin = np.minimum(margin[:, None], margin[None])
    full[margin >= GAP_PX + OUTLINE_PX] *= INNER_STRENGTH
    full[margin < GAP_PX] = np.nan
    start = len(tiles) // 2 * TILE_PX
    index = np.arange(TILE_PX) * len(blocks) // TILE_PX
    inner = slice(start, start + TILE_PX)
    full[inner, inner] = _normalize(blocks)[np.ix_(index, index)]
    return full


def _normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.abs(values[np.isfinite(values)])
    most = known.max() if len(known) else 0.0
    return np.asarray(values / most if most > 0 else values, np.float32)
