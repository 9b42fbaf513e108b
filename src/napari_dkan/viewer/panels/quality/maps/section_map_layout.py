"""Arrange the maps of a section: side by side in the grid or stacked with blink and swipe; keyboard shortcuts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Points, Vectors

from .....spatial.coordinates import swap_xy
from ....session.layer_stack import remove_layers
from ....session.shortcut_actions import register_actions
from ....session.slide_layer import AXIS_LABELS, MICROMETER_UNITS
from ....widgets.signal_connections import Debouncer, SignalConnections
from ..data.quality_model import MapLayout
from .section_maps import RESULT_KEY, SELECTED_SPOT_COLOR, SectionMaps

if TYPE_CHECKING:
    from ..quality_controller import QualityController


SECTION_GRID_STRIDE = 2  # a cell of the grid holds the slide and one map
SPOT_SCALE_IN_GRID = 1.6  # spots, in the grid
SECTION_GRID_SHAPE = 2, 2  # histology and measured above, predicted and residual below


class SectionMapLayout:
    """Keeps the layers of the chosen section in the chosen layout."""

    def __init__(
        self, quality: QualityController, connections: SignalConnections, maps: SectionMaps
    ) -> None:
        self._quality, self._maps = quality, maps
        self._viewer = quality.session.viewer
        self._grid: _SectionGrid | None = None
        self._divider: Vectors | None = None
        self._is_applying = False
        self._debouncer = Debouncer(0, self.apply)
        connections.connect(
            self.apply, quality.layout_changed, quality.section_changed, quality.comparison_changed
        )
        connections.connect(self._draw_selected_spot, quality.spot_changed)
        layers = self._viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_grid_toggled, self._viewer.canvas.grid.events.enabled)
        self._viewer.mouse_move_callbacks.append(self._on_mouse_move)

    def close(self) -> None:
        self._debouncer.stop()
        self._leave_grid()
        self._stop_swipe()
        if self._on_mouse_move in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._on_mouse_move)

    def apply(self, event: object = None) -> None:
        """Lay everything out as chosen."""
        if self._is_applying:
            return
        self._is_applying = True
        try:
            whole = len(self._maps.existing_layers()) == 3
            if self._quality.layout is MapLayout.SIDE_BY_SIDE and whole:
                self._stop_swipe()
                self._enter_grid()
            else:
                self._leave_grid()
                self._show_stacked()
        finally:
            self._is_applying = False

    def _on_layers_changed(self, event: object) -> None:
        """A layer came or went: in the grid every place counts."""
        if self._grid is not None and not self._is_applying:
            self._debouncer.start()

    def _on_grid_toggled(self, event: object) -> None:
        """The grid was switched off by hand."""
        if (
            self._grid is not None
            and not self._is_applying
            and not self._viewer.canvas.grid.enabled
        ):
            self._quality.set_layout(MapLayout.STACKED)

    # ---- side by side ---------------------------------------------------------------------

    def _enter_grid(self) -> None:
        section = self._quality.section
        assert section is not None
        slide, maps = section.slide, self._maps.existing_layers()
        if self._grid is not None and not self._grid.is_valid_for(self._viewer, maps):
            self._leave_grid()
        if slide is None:
            return
        if self._grid is None:
            ring = _make_selected_spot_layer(section.name, maps[0])
            copies = [
                _copy_slide(slide.layer, kind) for kind in ("measured", "predicted", "residual")
            ]
            for layer in (ring, *copies):
                self._quality.session.layers.attach(slide, layer)
            self._grid = _SectionGrid(self._viewer, slide.layer, ring, copies, maps)
        self._grid.arrange()
        self._draw_selected_spot()

    def _leave_grid(self) -> None:
        grid, self._grid = self._grid, None
        if grid is not None:
            grid.restore()

    def _draw_selected_spot(self) -> None:
        """The chosen spot, on the bare histology."""
        pair, spot = self._quality.pair, self._quality.spot_row
        if self._grid is None:
            return
        xy = np.empty((0, 2))
        if pair is not None and spot is not None:
            xy = pair.prediction.target.spots.xy[[pair.prediction_row(spot)]]
        self._grid.selected_spot_layer.data = swap_xy(xy)

    # ---- stacked ---------------------------------------------------------------------------

    def _show_stacked(self) -> None:
        maps = self._maps.existing_layers()
        for section in self._quality.sections:
            if section is not self._quality.section and section.layer is not None:
                section.layer.visible = False
        if len(maps) < 3:
            self._stop_swipe()
            for layer in maps:
                layer.visible = True
            return
        swiping = self._quality.swipe
        for layer, kind in zip(maps, ("measured", "predicted", "residual"), strict=True):
            layer.visible = kind != "residual" if swiping else kind == self._quality.visible_map
        if not swiping:
            self._stop_swipe()
        elif self._divider is None:
            self._start_swipe()

    def _start_swipe(self) -> None:
        section = self._quality.section
        assert section is not None
        if section.slide is None:
            return
        xy = section.xy
        self._divider = Vectors(
            np.zeros((1, 2, 2)),
            name="swipe: measured | predicted",
            scale=(section.slide.mpp,) * 2,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            edge_color="white",
            edge_width=12 / section.slide.mpp,
            vector_style="line",
        )
        selected = set(self._viewer.layers.selection)
        self._quality.session.layers.attach(section.slide, self._divider)
        self._viewer.layers.append(self._divider)
        self._viewer.layers.selection = selected
        self.set_divider(float(xy[:, 0].mean()))

    def _stop_swipe(self) -> None:
        divider, self._divider = self._divider, None
        if divider is None:
            return
        if divider in self._viewer.layers:
            self._viewer.layers.remove(divider)
        for layer in self._maps.existing_layers():
            layer.shown = True

    def set_divider(self, x: float) -> None:
        """Measured left of x in level-0 px, predicted right of it."""
        section, maps = self._quality.section, self._maps.existing_layers()
        if self._divider is None or section is None or section.slide is None or len(maps) < 3:
            return
        height = section.slide.slide.height
        self._divider.data = np.array([[[0.0, x], [height, 0.0]]])
        maps[0].shown = maps[0].data[:, 1] < x
        maps[1].shown = maps[1].data[:, 1] >= x

    def _on_mouse_move(self, viewer: Any, event: object) -> None:
        section = self._quality.section
        if self._divider is None or section is None or section.slide is None:
            return
        if self._divider not in self._viewer.layers:  # deleted by hand
            self._quality.set_swipe(False)
            return
        world = self._quality.session.viewer.cursor.position[-2:]
        self.set_divider(float(section.slide.layer.world_to_data(world)[-1]))


class _SectionGrid:
    """The layers of the grid, and how everything was before it."""

    def __init__(
        self,
        viewer: Any,
        slide: Layer,
        ring: Points,
        copies: list[Image],
        maps: tuple[Points, ...],
    ) -> None:
        self._viewer, self.selected_spot_layer, self._slide_copies, self._maps = (
            viewer,
            ring,
            copies,
            maps,
        )
        pairs = [layer for pair in zip(copies, maps, strict=True) for layer in pair]
        self._order = [slide, ring, *pairs]
        self._original_order = list(viewer.layers)
        others = [layer for layer in viewer.layers if layer not in self._order]
        self._hidden_layers = [layer for layer in others if layer.visible]
        grid, camera = viewer.canvas.grid, viewer.scene.camera
        self._grid_settings = grid.enabled, grid.stride, grid.shape, grid.spacing
        self._camera_state = camera.center, camera.zoom
        self._original_sizes = [np.array(layer.size) for layer in maps]
        for layer in self._hidden_layers:
            layer.visible = False

    def is_valid_for(self, viewer: Any, maps: tuple[Points, ...]) -> bool:
        """Whether it is still these maps, and nothing of it was deleted."""
        same = all(a is b for a, b in zip(self._maps, maps, strict=True))
        return same and all(layer in viewer.layers for layer in self._order)

    def arrange(self) -> None:
        """Two layers a cell from the bottom up; what is new comes after them."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        selected = set(layers.selection)
        _move_layers_to_bottom(layers, self._order)
        layers.selection = selected
        for layer in self._order:
            if not layer.visible:
                layer.visible = True
        if grid.enabled and grid.stride == SECTION_GRID_STRIDE:
            return
        for layer, size in zip(self._maps, self._original_sizes, strict=True):
            layer.size = SPOT_SCALE_IN_GRID * size  # the bare histology is beside them
        grid.stride, grid.shape, grid.spacing = SECTION_GRID_STRIDE, SECTION_GRID_SHAPE, 4
        grid.enabled = True
        # all cells show the spots, with room for the colour bars
        self._viewer.fit_to_view(layers=[self._maps[0]], margin=0.2)

    def restore(self) -> None:
        """Everything as it was before."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._grid_settings
        remove_layers(layers, (self.selected_spot_layer, *self._slide_copies))
        _move_layers_to_bottom(layers, [layer for layer in self._original_order if layer in layers])
        for layer, size in zip(self._maps, self._original_sizes, strict=True):
            if len(layer.data) == len(size):
                layer.size = size
        for layer in self._hidden_layers:
            layer.visible = True
        if not grid.enabled:
            self._viewer.scene.camera.center, self._viewer.scene.camera.zoom = self._camera_state


def _move_layers_to_bottom(layers: Any, wanted: list[Layer]) -> None:
    """Bring these to the bottom, in this order; each step makes napari lay out its scene."""
    for place, layer in enumerate(wanted):
        if layer not in layers:
            layers.insert(place, layer)
        elif layers[place] is not layer:
            layers.move(layers.index(layer), place)


def _copy_slide(layer: Image, kind: str) -> Image:
    """The slide once more, for another cell; it reads the same tiles."""
    return Image(
        layer.data,
        rgb=True,
        multiscale=layer.multiscale,
        name=f"{layer.name} under {kind}",
        scale=layer.scale[-2:],
        translate=layer.translate[-2:],
        units=layer.units,
        axis_labels=AXIS_LABELS,
        metadata={RESULT_KEY: "copy"},
    )


def _make_selected_spot_layer(name: str, template: Points) -> Points:
    return Points(
        np.empty((0, 2)),
        ndim=2,
        name=f"chosen spot - {name}",
        size=1.2 * float(np.max(template.size, initial=1.0)),
        scale=template.scale,
        units=template.units,
        axis_labels=AXIS_LABELS,
        face_color="transparent",
        border_color=SELECTED_SPOT_COLOR,
        border_width=0.15,
        metadata={RESULT_KEY: "chosen spot"},
    )


HOLD_SECONDS = 0.4  # seconds; a key held longer shows the other map only meanwhile


class LayoutShortcuts:
    """Blink: the other of measured and predicted, for good or while the key is held. Swipe."""

    def __init__(self, quality: QualityController) -> None:
        self._quality = quality
        self.close = register_actions(
            quality.session.viewer,
            blink=self._blink,
            swipe=self._toggle_swipe,
            side_by_side=self._toggle_side_by_side,
        )

    def _blink(self) -> Iterator[None]:
        self._quality.blink()
        pressed = time.perf_counter()  # leaving the grid takes a while
        yield  # until the key is let go
        if time.perf_counter() - pressed > HOLD_SECONDS:
            self._quality.blink()

    def _toggle_swipe(self) -> None:
        self._quality.set_swipe(not self._quality.swipe)

    def _toggle_side_by_side(self) -> None:
        beside = self._quality.layout is MapLayout.SIDE_BY_SIDE
        self._quality.set_layout(MapLayout.STACKED if beside else MapLayout.SIDE_BY_SIDE)
