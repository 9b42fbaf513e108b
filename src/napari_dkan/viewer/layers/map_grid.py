"""Maps side by side: one cell of napari's grid per map, each with a copy of the slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray

from ..session.layer_stack import preserve_selection, remove_layers
from ..session.slide_layer import AXIS_LABELS

LAYERS_PER_CELL = 2  # the slide and one map
CELL_SPACING_PX = 4  # screen pixels
CELL_FILL = 0.88  # fraction of a cell that a map fills


class MapGrid:
    """Shows maps side by side; `leave` restores the canvas."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._maps: tuple[Layer, ...] = ()
        self._slide_copies: list[Layer] = []
        self._hidden_layers: list[Layer] = []
        self._original_order: list[Layer] = []
        self._grid_settings: tuple[Any, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether maps are side by side."""
        return bool(self._maps)

    def enter(self, slide: Layer, maps: Sequence[Layer]) -> None:
        """Show these maps of a slide side by side, and nothing else."""
        self.leave()
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        self._maps, self._original_order = tuple(maps), list(layers)
        self._slide_copies = [_copy_slide_layer(slide, m.name) for m in maps[1:]]
        pairs = zip([slide, *self._slide_copies], maps, strict=True)
        order = [layer for pair in pairs for layer in pair]
        self._hidden_layers = [layer for layer in layers if layer not in order and layer.visible]
        self._grid_settings = grid.enabled, grid.stride, grid.shape, grid.spacing
        with preserve_selection(layers):
            for layer in self._hidden_layers:
                layer.visible = False
            for layer in self._slide_copies:
                layers.append(layer)
            _move_to_bottom(layers, order)  # cells are filled from the bottom of the list
        slide.visible = True
        for layer in maps:
            layer.visible = True
            layer.name_overlay.visible = True
            layer.name_overlay.position = "bottom_left"
        corners = np.stack([_layer_bounds(m) for m in maps])
        low, high = corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)
        shape, zoom = fit_grid(len(maps), self._viewer.canvas.size, high - low)
        grid.stride, grid.shape, grid.spacing = LAYERS_PER_CELL, shape, CELL_SPACING_PX
        grid.enabled = True
        self._viewer.reset_view()
        camera = self._viewer.scene.camera
        camera.center = (0, *((low + high) / 2))
        camera.zoom = zoom

    def leave(self) -> None:
        """Restore grid, order and visibility of layers; the maps stay."""
        if not self._maps:
            return
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        self._maps = ()
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._grid_settings
        remove_layers(layers, self._slide_copies)
        _move_to_bottom(layers, [layer for layer in self._original_order if layer in layers])
        for layer in self._hidden_layers:
            layer.visible = True
        self._slide_copies, self._hidden_layers, self._original_order = [], [], []
        self._viewer.reset_view()


def fit_grid(
    n_cells: int, canvas_size: tuple[int, int], extent: NDArray[np.floating]
) -> tuple[tuple[int, int], float]:
    """Return the shape of a grid of cells that shows an extent largest.

    Parameters
    ----------
    n_cells : int
    canvas_size : tuple of int
        (height, width) in screen pixels.
    extent : ndarray, (2,)
        (height, width) in world units.

    Returns
    -------
    tuple
        (rows, columns), and the zoom at which the extent fills a cell.
    """

    def zoom(shape: tuple[int, int]) -> float:
        cell = np.array(canvas_size) / shape - 2 * CELL_SPACING_PX
        return CELL_FILL * float(np.min(cell / np.maximum(extent, 1.0)))

    shapes = [(rows, -(-n_cells // rows)) for rows in range(1, n_cells + 1)]
    best = max(shapes, key=zoom)
    return best, zoom(best)


def _layer_bounds(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first and last corner (y, x) in the world."""
    low, high = layer.extent.world
    return low[-2:], high[-2:]


def _move_to_bottom(layers: Any, order: list[Layer]) -> None:
    """Move layers to the bottom, in this order."""
    for index, layer in enumerate(order):
        if layers[index] is not layer:
            layers.move(layers.index(layer), index)


def _copy_slide_layer(slide: Layer, map_name: str) -> Image:
    """A copy of the slide's layer for another cell; it reads the same tiles."""
    return Image(
        slide.data,
        rgb=True,
        multiscale=slide.multiscale,
        name=f"{slide.name} under {map_name}",
        scale=slide.scale[-2:],
        translate=slide.translate[-2:],
        units=slide.units,
        axis_labels=AXIS_LABELS,
        metadata={"napari-dkan": "copy"},
    )
