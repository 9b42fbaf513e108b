"""Keys for looking at measured and predicted in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..actions import answer
from .views import Layout

if TYPE_CHECKING:
    from .state import Quality

HOLD = 0.4  # seconds; a key held longer shows the other map only meanwhile


class Keys:
    """Blink: the other of measured and predicted, for good or while the key is held. Swipe."""

    def __init__(self, quality: Quality) -> None:
        self._quality = quality
        self.close = answer(
            quality.session.viewer, blink=self._blink, swipe=self._swipe, side_by_side=self._beside
        )

    def _blink(self) -> Iterator[None]:
        self._quality.blink()
        pressed = time.perf_counter()  # leaving the grid takes a while
        yield  # until the key is let go
        if time.perf_counter() - pressed > HOLD:
            self._quality.blink()

    def _swipe(self) -> None:
        self._quality.set_swipe(not self._quality.swipe)

    def _beside(self) -> None:
        beside = self._quality.layout is Layout.SIDE_BY_SIDE
        self._quality.set_layout(Layout.STACKED if beside else Layout.SIDE_BY_SIDE)
