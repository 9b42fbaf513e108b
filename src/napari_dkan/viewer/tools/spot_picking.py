"""Select a measured spot with a click and display its values in a tooltip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

if TYPE_CHECKING:
    from ..panels.quality.quality_controller import QualityController


DRAG_THRESHOLD_PX = 4  # screen pixels; a press that moves farther pans the view


class SpotPicker:
    """A click on a compared spot chooses it; over one, both its values are shown.

    While landmarks are being clicked, every click is one.
    """

    def __init__(self, quality: QualityController) -> None:
        self._quality = quality
        viewer = quality.session.viewer
        quality.session.click_claims.append(self.claims_click)
        viewer.mouse_drag_callbacks.append(self._on_mouse_drag)
        viewer.mouse_move_callbacks.append(self._on_mouse_move)

    def close(self) -> None:
        session = self._quality.session
        if self.claims_click in session.click_claims:
            session.click_claims.remove(self.claims_click)
        for callbacks, callback in (
            (session.viewer.mouse_drag_callbacks, self._on_mouse_drag),
            (session.viewer.mouse_move_callbacks, self._on_mouse_move),
        ):
            if callback in callbacks:
                callbacks.remove(callback)

    def claims_click(self, world: tuple[float, float]) -> bool:
        return self._quality.landmarks is not None or self.spot_at(world) is not None

    def spot_at(self, world: tuple[float, float]) -> int | None:
        """Row of the comparison at a place of the canvas, while its maps are visible."""
        quality = self._quality
        comparison, section = quality.comparison, quality.section
        if comparison is None or section is None or section.slide is None:
            return None
        shown = [layer for layer in quality.map_layers() if layer.visible]
        if not shown:
            return None
        reach = float(np.max(shown[0].size, initial=0.0)) / 2
        y, x = section.slide.layer.world_to_data(world)[-2:]
        distance = np.hypot(*(comparison.spots.xy - (x, y)).T)
        row = int(np.argmin(distance))
        return row if distance[row] <= reach else None

    def _on_mouse_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        active = viewer.layers.selection.active
        drawing = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if drawing or event.button != 1:
            return
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > DRAG_THRESHOLD_PX:
                return
            yield
        world = float(event.position[-2]), float(event.position[-1])
        landmarks = self._quality.landmarks
        if landmarks is not None:
            landmarks.click(world)
        elif (row := self.spot_at(world)) is not None:
            self._quality.choose_spot(row)

    def _on_mouse_move(self, viewer: Any, event: object) -> None:
        quality = self._quality
        world = tuple(quality.session.viewer.cursor.position[-2:])
        row = None if quality.landmarks is not None else self.spot_at(world)
        text = "" if row is None else self.format_values(row)
        if text:
            QToolTip.showText(QCursor.pos(), text)

    def format_values(self, row: int) -> str:
        """Both values of the shown gene at a spot, and their difference."""
        comparison, gene = self._quality.comparison, self._quality.session.gene
        if comparison is None or gene is None or gene not in comparison.panel:
            return ""
        column = comparison.panel.row(gene)
        measured = float(comparison.measured[row, column])
        predicted = float(comparison.predicted[row, column])
        name = comparison.spots.names[row] if comparison.spots.names else f"{row + 1}"
        return (
            f"{gene} at spot {name}\nmeasured {measured:.2f}\npredicted {predicted:.2f}\n"
            f"residual {predicted - measured:+.2f}\n{comparison.prediction.label_scale.name}"
        )
