"""A call that waits until things have been quiet for a while."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QTimer


class Debouncer:
    """Calls ``slot`` some time after the last `start`.

    Unlike a timer of Qt's it is no object that Qt could take away before its owner goes.
    """

    def __init__(self, milliseconds: int, slot: Callable[[], None]) -> None:
        self._milliseconds, self._slot = milliseconds, slot
        self._start_count = 0
        self.active = False

    def start(self) -> None:
        self._start_count += 1
        self.active = True
        QTimer.singleShot(self._milliseconds, partial(self._fire, self._start_count))

    def stop(self) -> None:
        self.active = False

    def _fire(self, start: int) -> None:
        if self.active and start == self._start_count:
            self.active = False
            self._slot()
