"""Choose a measured spot with a click on the canvas and show its values in a tooltip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from napari.layers import Points
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import QualityModel

DRAG_THRESHOLD_PX = 4  # screen pixels; a press that moves farther pans the view


class SpotPicker:
    """Chooses the clicked spot of the comparison and shows both values of the hovered one.

    While landmarks are being clicked, every click is passed to them.
    """

    def __init__(
        self,
        model: QualityModel,
        connections: SignalConnections,
        get_map_layers: Callable[[], tuple[Points, ...]],
    ) -> None:
        self._model, self._get_map_layers = model, get_map_layers
        viewer = model.session.viewer
        connections.add_callback(model.session.click_claims, self.claims_click)
        connections.add_callback(viewer.mouse_drag_callbacks, self._on_mouse_drag)
        connections.add_callback(viewer.mouse_move_callbacks, self._on_mouse_move)

    def claims_click(self, world: tuple[float, float]) -> bool:
        return self._model.landmarks is not None or self.spot_at(world) is not None

    def spot_at(self, world: tuple[float, float]) -> int | None:
        """Return the row of the comparison at a position (y, x), while a map is visible."""
        comparison, section = self._model.comparison, self._model.section
        if comparison is None or section is None or section.slide is None:
            return None
        visible = [layer for layer in self._get_map_layers() if layer.visible]
        if not visible:
            return None
        radius = float(np.max(visible[0].size, initial=0.0)) / 2
        y, x = section.slide.layer.world_to_data(world)[-2:]
        distance = np.hypot(*(comparison.spots.xy - (x, y)).T)
        row = int(np.argmin(distance))
        return row if distance[row] <= radius else None

    def _on_mouse_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        active = viewer.layers.selection.active
        is_drawing = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if is_drawing or event.button != 1:
            return
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > DRAG_THRESHOLD_PX:
                return
            yield
        world = float(event.position[-2]), float(event.position[-1])
        landmarks = self._model.landmarks
        if landmarks is not None:
            landmarks.click(world)
        elif (row := self.spot_at(world)) is not None:
            self._model.choose_spot(row)

    def _on_mouse_move(self, viewer: Any, event: object) -> None:
        world = tuple(self._model.session.viewer.cursor.position[-2:])
        row = None if self._model.landmarks is not None else self.spot_at(world)
        text = "" if row is None else self.format_values(row)
        if text:
            QToolTip.showText(QCursor.pos(), text)

    def format_values(self, row: int) -> str:
        """Format both values of the current gene at a spot and their difference."""
        comparison = self._model.comparison
        spot = self._model.spot_values(row)
        if comparison is None or spot is None:
            return ""
        return (
            f"{spot.gene} at spot {spot.name}\nmeasured {spot.measured:.2f}\n"
            f"predicted {spot.predicted:.2f}\nresidual {spot.predicted - spot.measured:+.2f}\n"
            f"{comparison.prediction.label_scale.name}"
        )
