"""Maps side by side: one cell of napari's grid per map, each with a copy of the slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ..session.layer_stack import preserve_selection
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, ViewerSlide
from ..session.viewer_session import ViewerSession

LAYERS_PER_CELL = 2  # the slide and one map
CELL_SPACING_PX = 4  # screen pixels
CELL_FILL = 0.88  # fraction of a cell that the maps fill
TOP_SHARE = 0.7  # of the free height of a cell: a color bar is above, only a name below
FIXED_SHAPE_MARGIN = 0.2  # room for the colour bars


class MapGrid:
    """Shows some maps of a slide in napari's grid, and restores the canvas afterwards.

    Parameters
    ----------
    session
    shape
        (rows, columns) of the grid; None: the shape that shows the maps largest.
    point_scale
        Factor on the size of points while they are in the grid.
    restore_camera
        Whether leaving the grid restores the view; else it is reset.
    """

    def __init__(
        self,
        session: ViewerSession,
        shape: tuple[int, int] | None = None,
        point_scale: float = 1.0,
        restore_camera: bool = False,
    ) -> None:
        self._session, self._viewer = session, session.viewer
        self._shape, self._point_scale = shape, point_scale
        self._restore_camera = restore_camera
        self._maps: tuple[Layer, ...] = ()
        self._order: list[Layer] = []  # of the layers in the grid, from the bottom up
        self._added_layers: list[Layer] = []  # copies of the slide, and `bare_slide_overlay`
        self._hidden_layers: list[Layer] = []
        self._original_order: list[Layer] = []
        self._original_sizes: list[NDArray[np.floating]] = []
        self._grid_settings: tuple[Any, ...] = ()
        self._camera_state: tuple[Any, ...] = ()
        self._is_arranged = False

    @property
    def is_active(self) -> bool:
        return bool(self._maps)

    def enter(
        self,
        slide: ViewerSlide,
        maps: Sequence[Layer],
        names: Sequence[str] = (),
        bare_slide_overlay: Layer | None = None,
    ) -> None:
        """Show only these maps of a slide.

        Parameters
        ----------
        slide
        maps
            Layers of the viewer, one per cell.
        names
            Of the maps, for the names of the copied slides; default: the layers' names.
        bare_slide_overlay
            Makes a first cell with the slide and this layer alone; it is removed on leaving.
        """
        self.leave()
        viewer, grid = self._viewer, self._viewer.canvas.grid
        self._original_order = list(viewer.layers)
        copies = [_copy_slide_layer(slide.layer, name) for name in names or [m.name for m in maps]]
        if bare_slide_overlay is None:
            slides, overlays, self._added_layers = [slide.layer, *copies[1:]], [*maps], copies[1:]
        else:
            slides, overlays = [slide.layer, *copies], [bare_slide_overlay, *maps]
            self._added_layers = [bare_slide_overlay, *copies]
        pairs = zip(slides, overlays, strict=True)
        self._order = [layer for pair in pairs for layer in pair]
        for layer in self._added_layers:
            self._session.layers.attach(slide, layer)
        self._session.layers.unlist(*self._added_layers)
        self._hidden_layers = [
            layer for layer in viewer.layers if layer not in self._order and layer.visible
        ]
        self._grid_settings = grid.enabled, grid.stride, grid.shape, grid.spacing
        camera = viewer.scene.camera
        self._camera_state = camera.center, camera.zoom
        self._original_sizes = [
            np.array(layer.size) if isinstance(layer, Points) else np.empty(0) for layer in maps
        ]
        self._maps, self._is_arranged = tuple(maps), False
        for layer in self._hidden_layers:
            layer.visible = False
        for layer in maps:
            layer.name_overlay.visible, layer.name_overlay.position = True, "bottom_left"
        self.arrange()

    def is_intact(self, maps: Sequence[Layer]) -> bool:
        """Return whether the grid shows these maps and none of its layers was deleted."""
        same = len(maps) == len(self._maps) and all(
            a is b for a, b in zip(self._maps, maps, strict=True)
        )
        return same and all(layer in self._viewer.layers for layer in self._order)

    def arrange(self) -> None:
        """Put the layers of the grid below all others, since cells are filled from the bottom."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        with preserve_selection(layers):
            _move_to_bottom(layers, self._order)
        for layer in self._order:
            if not layer.visible:
                layer.visible = True
        if self._is_arranged and grid.enabled and grid.stride == LAYERS_PER_CELL:
            return
        self._is_arranged = True
        if self._point_scale != 1.0:
            for layer, size in zip(self._maps, self._original_sizes, strict=True):
                if isinstance(layer, Points):
                    layer.size = self._point_scale * size
        if self._shape is not None:
            self._enable(self._shape)
            self._viewer.fit_to_view(layers=[self._maps[0]], margin=FIXED_SHAPE_MARGIN)
            low, high = _layer_bounds(self._maps[0])
            self._lower(self._shape, high - low)
            return
        corners = np.stack([_layer_bounds(layer) for layer in self._maps])
        low, high = corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)
        shape, zoom = fit_grid(len(self._maps), self._viewer.canvas.size, high - low)
        self._enable(shape)
        self._viewer.reset_view()
        camera = self._viewer.scene.camera
        camera.center = (0, *((low + high) / 2))
        camera.zoom = zoom
        self._lower(shape, high - low)

    def _lower(self, shape: tuple[int, int], extent: NDArray[np.floating]) -> None:
        """Draw the maps below the middle of their cells, as color bars are above them."""
        camera = self._viewer.scene.camera
        free_height = self._viewer.canvas.size[0] / shape[0] / camera.zoom - extent[0]
        y, x = camera.center[-2:]
        camera.center = (0, y - (TOP_SHARE - 0.5) * max(free_height, 0.0), x)

    def _enable(self, shape: tuple[int, int]) -> None:
        grid = self._viewer.canvas.grid
        grid.stride, grid.shape, grid.spacing = LAYERS_PER_CELL, shape, CELL_SPACING_PX
        grid.enabled = True

    def leave(self) -> None:
        """Restore the grid, the layers and the view; the maps stay."""
        if not self._maps:
            return
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        maps, self._maps = self._maps, ()
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._grid_settings
        self._session.layers.remove(*self._added_layers)
        _move_to_bottom(layers, [layer for layer in self._original_order if layer in layers])
        if self._point_scale != 1.0:
            for layer, size in zip(maps, self._original_sizes, strict=True):
                if isinstance(layer, Points) and len(layer.data) == len(size):
                    layer.size = size
        for layer in self._hidden_layers:
            layer.visible = True
        self._order, self._added_layers, self._original_order = [], [], []
        self._hidden_layers, self._original_sizes = [], []
        if not self._restore_camera:
            self._viewer.reset_view()
        elif not grid.enabled:
            self._viewer.scene.camera.center, self._viewer.scene.camera.zoom = self._camera_state


def fit_grid(
    n_cells: int, canvas_size: tuple[int, int], extent: NDArray[np.floating]
) -> tuple[tuple[int, int], float]:
    """Choose the grid that shows an extent largest.

    Parameters
    ----------
    n_cells
    canvas_size
        (height, width) in screen pixels.
    extent
        (height, width) of the maps in world units.

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
    """First and last corner (y, x) in the world."""
    low, high = layer.extent.world
    return low[-2:], high[-2:]


def _move_to_bottom(layers: Any, ordered: Sequence[Layer]) -> None:
    """Insert or move layers to the bottom, in this order; napari redraws for every step."""
    for index, layer in enumerate(ordered):
        if layer not in layers:
            layers.insert(index, layer)
        elif layers[index] is not layer:
            layers.move(layers.index(layer), index)


def _copy_slide_layer(slide: Layer, map_name: str) -> Image:
    """A second layer of the slide, which reads the same tiles."""
    return Image(
        slide.data,
        rgb=True,
        multiscale=slide.multiscale,
        name=f"{slide.name} under {map_name}",
        scale=slide.scale[-2:],
        translate=slide.translate[-2:],
        units=slide.units,
        axis_labels=AXIS_LABELS,
        metadata={METADATA_PREFIX: "copy"},
    )
