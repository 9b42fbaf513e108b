"""Keys for looking at measured and predicted in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..actions import register_actions
from .views import MapLayout

if TYPE_CHECKING:
    from .state import QualityController

HOLD_SECONDS = 0.4  # seconds; a key held longer shows the other map only meanwhile


class LayoutShortcuts:
    """Blink: the other of measured and predicted, for good or while the key is held. Swipe."""

    def __init__(self, quality: QualityController) -> None:
        self._quality = quality
        self.close = register_actions(
            quality.session.viewer, blink=self._blink, swipe=self._toggle_swipe, side_by_side=self._toggle_side_by_side
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
