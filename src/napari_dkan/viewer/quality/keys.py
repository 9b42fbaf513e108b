"""Keys for looking at measured and predicted in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import Quality

BLINK, SWIPE = "K", "J"  # free in every layer's own keys, as B and S are not
HOLD = 0.4  # seconds; a key held longer shows the other map only meanwhile


class Keys:
    """K: the other of measured and predicted, for good or while it is held. J: swipe."""

    def __init__(self, quality: Quality) -> None:
        self._quality = quality
        viewer = quality.session.viewer
        viewer.bind_key(BLINK, self._blink, overwrite=True)
        viewer.bind_key(SWIPE, self._swipe, overwrite=True)

    def close(self) -> None:
        viewer = self._quality.session.viewer
        for key in (BLINK, SWIPE):
            viewer.bind_key(key, None)

    def _blink(self, viewer: object) -> Iterator[None]:
        self._quality.blink()
        pressed = time.perf_counter()  # leaving the grid takes a while
        yield  # until the key is let go
        if time.perf_counter() - pressed > HOLD:
            self._quality.blink()

    def _swipe(self, viewer: object) -> None:
        self._quality.set_swipe(not self._quality.swipe)
