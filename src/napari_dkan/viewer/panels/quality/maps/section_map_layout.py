"""Arrange the maps of a section: side by side in the grid, or stacked with blink and swipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Points, Vectors

from .....spatial.coordinates import swap_xy
from ....layers.map_grid import MapGrid
from ....layers.value_layers import make_spots_layer
from ....session.shortcut_actions import register_actions
from ....session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS
from ....widgets.busy_line import busy_line
from ....widgets.signal_connections import Debouncer, SignalConnections
from ..data.quality_model import MapKind, MapLayout, QualityModel
from .section_maps import SELECTED_SPOT_COLOR, SectionMaps

SPOT_SCALE_IN_GRID = 1.6  # factor: the bare histology is in a cell of its own
SECTION_GRID_SHAPE = 2, 2  # histology and measured above, predicted and residual below
DIVIDER_WIDTH_PX = 12


class SectionMapLayout:
    """Arranges the layers of the chosen section in the chosen layout."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, maps: SectionMaps
    ) -> None:
        self._model, self._maps = model, maps
        self._viewer = model.session.viewer
        self._grid = MapGrid(
            model.session, SECTION_GRID_SHAPE, SPOT_SCALE_IN_GRID, restore_camera=True
        )
        self._selected_spot_layer: Points | None = None  # while the grid is shown
        self._divider: Vectors | None = None
        self._is_applying = False
        self._debouncer = Debouncer(0, self.apply)
        connections.connect(
            self.apply,
            model.layout_changed,
            model.section_changed,
            model.comparison_changed,
            maps.layers_created,
        )
        connections.connect(self._draw_selected_spot, model.spot_changed)
        layers = self._viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_grid_toggled, self._viewer.canvas.grid.events.enabled)
        connections.add_callback(self._viewer.mouse_move_callbacks, self._on_mouse_move)

    def close(self) -> None:
        self._debouncer.stop()
        self._leave_grid()
        self._stop_swipe()

    def apply(self, event: object = None) -> None:
        """Arrange the layers as the model says."""
        if self._is_applying:
            return
        self._is_applying = True
        try:
            is_complete = len(self._maps.existing_layers()) == len(MapKind)
            if self._model.layout is MapLayout.SIDE_BY_SIDE and is_complete:
                self._stop_swipe()
                self._show_side_by_side()
            else:
                self._leave_grid()
                self._show_stacked()
        finally:
            self._is_applying = False

    def _on_layers_changed(self, event: object) -> None:
        """Arrange the grid again: the position in the layer list decides about the cell."""
        if self._grid.is_active and not self._is_applying:
            self._debouncer.start()

    def _on_grid_toggled(self, event: object) -> None:
        """Stack the maps when the user switches the grid off."""
        is_switched_off = self._grid.is_active and not self._viewer.canvas.grid.enabled
        if is_switched_off and not self._is_applying:
            self._model.set_layout(MapLayout.STACKED)

    # ---- side by side ---------------------------------------------------------------------

    def _show_side_by_side(self) -> None:
        section, maps = self._model.section, self._maps.existing_layers()
        assert section is not None
        if self._grid.is_active and not self._grid.is_intact(maps):
            self._leave_grid()
        if section.slide is None:
            return
        if self._grid.is_active:
            self._grid.arrange()
        else:
            diameter_px = 1.2 * float(np.max(maps[0].size, initial=1.0))
            self._selected_spot_layer = make_spots_layer(
                np.empty((0, 2)),
                section.slide.mpp,
                f"chosen spot - {section.name}",
                diameter_px * section.slide.mpp,
                face_color="transparent",
                border_color=SELECTED_SPOT_COLOR,
                border_width=0.15,
                metadata={METADATA_PREFIX: "chosen spot"},
            )
            names = [str(kind) for kind in MapKind]
            with busy_line(self._viewer, "Arranging the maps ..."):
                self._grid.enter(section.slide, maps, names, self._selected_spot_layer)
        self._draw_selected_spot()

    def _leave_grid(self) -> None:
        self._selected_spot_layer = None
        self._grid.leave()

    def _draw_selected_spot(self) -> None:
        """Mark the chosen spot on the bare histology."""
        pair, row = self._model.pair, self._model.spot_row
        if self._selected_spot_layer is None:
            return
        xy = np.empty((0, 2))
        if pair is not None and row is not None:
            xy = pair.prediction.target.spots.xy[[pair.prediction_row(row)]]
        self._selected_spot_layer.data = swap_xy(xy)

    # ---- stacked ---------------------------------------------------------------------------

    def _show_stacked(self) -> None:
        maps = self._maps.existing_layers()
        for section in self._model.sections:
            if section is not self._model.section and section.layer is not None:
                section.layer.visible = False
        if len(maps) < len(MapKind):
            self._stop_swipe()
            for layer in maps:
                layer.visible = True
            return
        swipe, visible = self._model.swipe, self._model.visible_map
        for layer, kind in zip(maps, MapKind, strict=True):
            layer.visible = kind is not MapKind.RESIDUAL if swipe else kind is visible
        if not swipe:
            self._stop_swipe()
        elif self._divider is None:
            self._start_swipe()

    def _start_swipe(self) -> None:
        section = self._model.section
        assert section is not None
        if section.slide is None:
            return
        self._divider = Vectors(
            np.zeros((1, 2, 2)),
            name="swipe: measured | predicted",
            scale=(section.slide.mpp,) * 2,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            edge_color="white",
            edge_width=DIVIDER_WIDTH_PX / section.slide.mpp,
            vector_style="line",
        )
        self._model.session.layers.insert(self._divider, section.slide)
        self.set_divider(float(section.xy[:, 0].mean()))

    def _stop_swipe(self) -> None:
        divider, self._divider = self._divider, None
        if divider is None:
            return
        self._model.session.layers.remove(divider)
        for layer in self._maps.existing_layers():
            layer.shown = True

    def set_divider(self, x: float) -> None:
        """Show measured values left of x (level-0 px) and predicted ones right of it."""
        section, maps = self._model.section, self._maps.existing_layers()
        if section is None or section.slide is None:
            return
        if self._divider is None or len(maps) < len(MapKind):
            return
        height = section.slide.slide.height
        self._divider.data = np.array([[[0.0, x], [height, 0.0]]])
        maps[0].shown = maps[0].data[:, 1] < x
        maps[1].shown = maps[1].data[:, 1] >= x

    def _on_mouse_move(self, viewer: Any, event: object) -> None:
        section = self._model.section
        if self._divider is None or section is None or section.slide is None:
            return
        if self._divider not in self._viewer.layers:  # deleted by the user
            self._model.set_swipe(False)
            return
        world = self._viewer.cursor.position[-2:]
        self.set_divider(float(section.slide.layer.world_to_data(world)[-1]))


HOLD_SECONDS = 0.4  # a key held longer shows the other map only while it is held


class LayoutShortcuts:
    """Keyboard shortcuts: blink (permanently, or while the key is held), swipe, side by side."""

    def __init__(self, model: QualityModel) -> None:
        self._model = model
        self.close = register_actions(
            model.session.viewer,
            blink=self._blink,
            swipe=self._toggle_swipe,
            side_by_side=self._toggle_side_by_side,
        )

    def _blink(self) -> Iterator[None]:
        self._model.blink()
        start = time.perf_counter()  # after the blink: leaving the grid takes time
        yield  # until the key is released
        if time.perf_counter() - start > HOLD_SECONDS:
            self._model.blink()

    def _toggle_swipe(self) -> None:
        self._model.set_swipe(not self._model.swipe)

    def _toggle_side_by_side(self) -> None:
        is_side_by_side = self._model.layout is MapLayout.SIDE_BY_SIDE
        self._model.set_layout(MapLayout.STACKED if is_side_by_side else MapLayout.SIDE_BY_SIDE)
