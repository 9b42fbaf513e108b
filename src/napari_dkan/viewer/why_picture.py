"""Why here, on the canvas: the blocks of the clicked patch and, around it, its neighbour tiles."""

from __future__ import annotations

import numpy as np
from napari.layers import Image, Points
from napari.utils import Colormap
from numpy.typing import NDArray

from .overlay import SpotsOverlay
from .session import OpenSlide, Session
from .slides import AXES, UNITS

TILE = 56  # raster px a tile
GAP, EDGE = 2, 4  # raster px: left free around a neighbour tile, and the width of its outline
INSIDE = 0.45  # of a neighbour's strength, within its outline
# Orange gives, blue takes: told apart by every kind of colour vision, and from pink tissue.
BOTH_WAYS = Colormap(
    [[0.0, 0.28, 0.75, 0.9], [0.0, 0.45, 0.85, 0.0], [0.95, 0.5, 0.0, 0.0], [0.9, 0.35, 0.0, 0.9]],
    controls=[0, 0.5, 0.5, 1],
    name="dkan why",
)


class WhyPicture:
    """One layer, over the grid x grid patches around a place (x, y); side : of a patch, level-0 px.

    Predicted spots under it are hidden meanwhile: they would hide the tissue it is about.
    """

    def __init__(self, session: Session, slide: OpenSlide, record: object) -> None:
        self._session, self._slide = session, slide
        self._square: tuple[float, float, float] | None = None  # x, y, half its side
        self._hidden: list[Points] = []
        self.layer = Image(
            np.full((1, 1), np.nan, np.float32),
            name="why here",
            blending="translucent",
            interpolation2d="nearest",
            contrast_limits=(-1, 1),
            colormap=BOTH_WAYS,
            units=UNITS,
            axis_labels=AXES,
            metadata={"napari-dkan": record},
        )
        session.put_on(slide, self.layer)
        layers, selected = session.viewer.layers, set(session.viewer.layers.selection)
        layers.append(self.layer)
        layers.selection = selected

    @property
    def there(self) -> bool:
        return self.layer in self._session.viewer.layers

    def show(
        self,
        name: str,
        place: tuple[float, float, float],
        tiles: NDArray[np.float32],
        blocks: NDArray[np.float32],
    ) -> None:
        """place : x, y and the patch's side; tiles (grid, grid) and blocks (n, n) as in `Why`."""
        x, y, side = place
        layer, px = self.layer, side * self._slide.mpp / TILE
        half = len(tiles) * side / 2
        layer.data = raster(tiles, blocks)
        layer.scale = (px, px)
        layer.translate = [(c - half) * self._slide.mpp + px / 2 for c in (y, x)]
        layer.name = name
        self._square = (x, y, half)
        self.clear_view()

    def clear_view(self) -> None:
        """Hide what was predicted in spots there, until the picture is taken away."""
        if self._square is None:
            return
        x, y, half = self._square
        for layer in self._spots():
            under = (np.abs(layer.data - (y, x)) < half).all(axis=1)
            if layer.visible and under.any():
                layer.visible = False
                self._hidden.append(layer)

    def take_away(self) -> None:
        layers = self._session.viewer.layers
        self._square = None
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []
        if self.there:
            layers.remove(self.layer)

    def _spots(self) -> list[Points]:
        return [o.layer for o in self._session.overlays if isinstance(o, SpotsOverlay)]


def raster(tiles: NDArray[np.float32], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(grid * TILE, grid * TILE) within -1..1, NaN where nothing is known: the strongest block of
    the patch and the strongest neighbour are 1 or -1, each among its own kind."""
    each = _relative(tiles)
    full = np.repeat(np.repeat(each, TILE, axis=0), TILE, axis=1)
    within = np.arange(len(full)) % TILE
    margin = np.minimum(within, TILE - 1 - within)
    margin = np.minimum(margin[:, None], margin[None])
    full[margin >= GAP + EDGE] *= INSIDE
    full[margin < GAP] = np.nan
    start = len(tiles) // 2 * TILE
    index = np.arange(TILE) * len(blocks) // TILE
    inner = slice(start, start + TILE)
    full[inner, inner] = _relative(blocks)[np.ix_(index, index)]
    return full


def _relative(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.abs(values[np.isfinite(values)])
    most = known.max() if len(known) else 0.0
    return np.asarray(values / most if most > 0 else values, np.float32)
