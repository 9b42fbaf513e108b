"""Signal connections that are disconnected together, and a debounced call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QTimer


class SignalConnections:
    """Joins slots to psygnal signals or napari events, and remembers it."""

    def __init__(self) -> None:
        self._connections: list[tuple[Any, Callable[..., Any]]] = []

    def connect(self, slot: Callable[..., Any], *signals: Any) -> None:
        """Call ``slot`` whenever one of the signals is emitted."""
        for signal in signals:
            signal.connect(slot)
            self._connections.append((signal, slot))

    def disconnect_all(self) -> None:
        """Undo every join."""
        while self._connections:
            signal, slot = self._connections.pop()
            signal.disconnect(slot)


def call_once(*callbacks: Callable[[], None]) -> Callable[[], None]:
    """All of the actions on the first call, nothing later: a panel can go in several ways."""
    left = list(callbacks)

    def act() -> None:
        while left:
            left.pop(0)()

    return act


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
