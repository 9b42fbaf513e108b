"""Side by side, each map on a copy of the slide, or stacked, with blink and swipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Points, Vectors

from ...spatial.coordinates import swap_xy
from ..later import Later
from ..links import Links
from ..slides import AXES, UNITS
from .layers import CHOSEN, PART, SpotMaps
from .removing import remove_layers
from .views import Layout

if TYPE_CHECKING:
    from .state import Quality

STRIDE = 2  # a cell of the grid holds the slide and one map
WIDER = 1.6  # spots, in the grid
SHAPE = 2, 2  # histology and measured above, predicted and residual below


class Arrangement:
    """Keeps the layers of the chosen section in the chosen layout."""

    def __init__(self, quality: Quality, links: Links, maps: SpotMaps) -> None:
        self._quality, self._maps = quality, maps
        self._viewer = quality.session.viewer
        self._grid: _Grid | None = None
        self._divider: Vectors | None = None
        self._busy = False
        self._soon = Later(0, self.apply)
        links.join(
            self.apply, quality.layout_changed, quality.section_changed, quality.comparison_changed
        )
        links.join(self._ring, quality.spot_changed)
        layers = self._viewer.layers
        links.join(self._disturbed, layers.events.inserted, layers.events.removed)
        links.join(self._grid_button, self._viewer.canvas.grid.events.enabled)
        self._viewer.mouse_move_callbacks.append(self._follow)

    def close(self) -> None:
        self._soon.stop()
        self._leave_grid()
        self._end_swipe()
        if self._follow in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._follow)

    def apply(self, event: object = None) -> None:
        """Lay everything out as chosen."""
        if self._busy:
            return
        self._busy = True
        try:
            whole = len(self._maps.all()) == 3
            if self._quality.layout is Layout.SIDE_BY_SIDE and whole:
                self._end_swipe()
                self._enter_grid()
            else:
                self._leave_grid()
                self._stack()
        finally:
            self._busy = False

    def _disturbed(self, event: object) -> None:
        """A layer came or went: in the grid every place counts."""
        if self._grid is not None and not self._busy:
            self._soon.start()

    def _grid_button(self, event: object) -> None:
        """The grid was switched off by hand."""
        if self._grid is not None and not self._busy and not self._viewer.canvas.grid.enabled:
            self._quality.set_layout(Layout.STACKED)

    # ---- side by side ---------------------------------------------------------------------

    def _enter_grid(self) -> None:
        section = self._quality.section
        assert section is not None
        slide, maps = section.slide, self._maps.all()
        if self._grid is not None and not self._grid.holds(self._viewer, maps):
            self._leave_grid()
        if slide is None:
            return
        if self._grid is None:
            ring = _ring_layer(section.name, maps[0])
            copies = [_copy(slide.layer, kind) for kind in ("measured", "predicted", "residual")]
            for layer in (ring, *copies):
                self._quality.session.put_on(slide, layer)
            self._grid = _Grid(self._viewer, slide.layer, ring, copies, maps)
        self._grid.arrange()
        self._ring()

    def _leave_grid(self) -> None:
        grid, self._grid = self._grid, None
        if grid is not None:
            grid.restore()

    def _ring(self) -> None:
        """The chosen spot, on the bare histology."""
        pair, spot = self._quality.pair, self._quality.spot
        if self._grid is None:
            return
        xy = np.empty((0, 2))
        if pair is not None and spot is not None:
            xy = pair.prediction.target.spots.xy[[pair.row(spot)]]
        self._grid.ring.data = swap_xy(xy)

    # ---- stacked ---------------------------------------------------------------------------

    def _stack(self) -> None:
        maps = self._maps.all()
        for section in self._quality.sections:
            if section is not self._quality.section and section.layer is not None:
                section.layer.visible = False
        if len(maps) < 3:
            self._end_swipe()
            for layer in maps:
                layer.visible = True
            return
        swiping = self._quality.swipe
        for layer, kind in zip(maps, ("measured", "predicted", "residual"), strict=True):
            layer.visible = kind != "residual" if swiping else kind == self._quality.shown
        if not swiping:
            self._end_swipe()
        elif self._divider is None:
            self._begin_swipe()

    def _begin_swipe(self) -> None:
        section = self._quality.section
        assert section is not None
        if section.slide is None:
            return
        xy = section.xy
        self._divider = Vectors(
            np.zeros((1, 2, 2)),
            name="swipe: measured | predicted",
            scale=(section.slide.mpp,) * 2,
            units=UNITS,
            axis_labels=AXES,
            edge_color="white",
            edge_width=12 / section.slide.mpp,
            vector_style="line",
        )
        selected = set(self._viewer.layers.selection)
        self._quality.session.put_on(section.slide, self._divider)
        self._viewer.layers.append(self._divider)
        self._viewer.layers.selection = selected
        self.divide(float(xy[:, 0].mean()))

    def _end_swipe(self) -> None:
        divider, self._divider = self._divider, None
        if divider is None:
            return
        if divider in self._viewer.layers:
            self._viewer.layers.remove(divider)
        for layer in self._maps.all():
            layer.shown = True

    def divide(self, x: float) -> None:
        """Measured left of x in level-0 px, predicted right of it."""
        section, maps = self._quality.section, self._maps.all()
        if self._divider is None or section is None or section.slide is None or len(maps) < 3:
            return
        height = section.slide.slide.height
        self._divider.data = np.array([[[0.0, x], [height, 0.0]]])
        maps[0].shown = maps[0].data[:, 1] < x
        maps[1].shown = maps[1].data[:, 1] >= x

    def _follow(self, viewer: Any, event: object) -> None:
        section = self._quality.section
        if self._divider is None or section is None or section.slide is None:
            return
        if self._divider not in self._viewer.layers:  # deleted by hand
            self._quality.set_swipe(False)
            return
        world = self._quality.session.viewer.cursor.position[-2:]
        self.divide(float(section.slide.layer.world_to_data(world)[-1]))


class _Grid:
    """The layers of the grid, and how everything was before it."""

    def __init__(
        self,
        viewer: Any,
        slide: Layer,
        ring: Points,
        copies: list[Image],
        maps: tuple[Points, ...],
    ) -> None:
        self._viewer, self.ring, self._copies, self._maps = viewer, ring, copies, maps
        pairs = [layer for pair in zip(copies, maps, strict=True) for layer in pair]
        self._order = [slide, ring, *pairs]
        self._before = list(viewer.layers)
        others = [layer for layer in viewer.layers if layer not in self._order]
        self._hidden = [layer for layer in others if layer.visible]
        grid, camera = viewer.canvas.grid, viewer.scene.camera
        self._settings = grid.enabled, grid.stride, grid.shape, grid.spacing
        self._seen = camera.center, camera.zoom
        self._sizes = [np.array(layer.size) for layer in maps]
        for layer in self._hidden:
            layer.visible = False

    def holds(self, viewer: Any, maps: tuple[Points, ...]) -> bool:
        """Whether it is still these maps, and nothing of it was deleted."""
        same = all(a is b for a, b in zip(self._maps, maps, strict=True))
        return same and all(layer in viewer.layers for layer in self._order)

    def arrange(self) -> None:
        """Two layers a cell from the bottom up; what is new comes after them."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        selected = set(layers.selection)
        _sort(layers, self._order)
        layers.selection = selected
        for layer in self._order:
            if not layer.visible:
                layer.visible = True
        if grid.enabled and grid.stride == STRIDE:
            return
        for layer, size in zip(self._maps, self._sizes, strict=True):
            layer.size = WIDER * size  # the bare histology is beside them
        grid.stride, grid.shape, grid.spacing = STRIDE, SHAPE, 4
        grid.enabled = True
        # all cells show the spots, with room for the colour bars
        self._viewer.fit_to_view(layers=[self._maps[0]], margin=0.2)

    def restore(self) -> None:
        """Everything as it was before."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._settings
        remove_layers(layers, (self.ring, *self._copies))
        _sort(layers, [layer for layer in self._before if layer in layers])
        for layer, size in zip(self._maps, self._sizes, strict=True):
            if len(layer.data) == len(size):
                layer.size = size
        for layer in self._hidden:
            layer.visible = True
        if not grid.enabled:
            self._viewer.scene.camera.center, self._viewer.scene.camera.zoom = self._seen


def _sort(layers: Any, wanted: list[Layer]) -> None:
    """Bring these to the bottom, in this order; each step makes napari lay out its scene."""
    for place, layer in enumerate(wanted):
        if layer not in layers:
            layers.insert(place, layer)
        elif layers[place] is not layer:
            layers.move(layers.index(layer), place)


def _copy(layer: Image, kind: str) -> Image:
    """The slide once more, for another cell; it reads the same tiles."""
    return Image(
        layer.data,
        rgb=True,
        multiscale=layer.multiscale,
        name=f"{layer.name} under {kind}",
        scale=layer.scale[-2:],
        translate=layer.translate[-2:],
        units=layer.units,
        axis_labels=AXES,
        metadata={PART: "copy"},
    )


def _ring_layer(name: str, like: Points) -> Points:
    return Points(
        np.empty((0, 2)),
        ndim=2,
        name=f"chosen spot - {name}",
        size=1.2 * float(np.max(like.size, initial=1.0)),
        scale=like.scale,
        units=like.units,
        axis_labels=AXES,
        face_color="transparent",
        border_color=CHOSEN,
        border_width=0.15,
        metadata={PART: "chosen spot"},
    )
