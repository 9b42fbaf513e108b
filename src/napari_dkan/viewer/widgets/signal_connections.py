"""Signal connections that are disconnected together, and a debounced call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QTimer


class SignalConnections:
    """Connections to psygnal signals and napari events that end together."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def connect(self, slot: Callable[..., Any], *signals: Any) -> None:
        """Call ``slot`` whenever one of the signals is emitted."""
        for signal in signals:
            signal.connect(slot)
            self._undo.append(partial(signal.disconnect, slot))

    def add_callback(self, callbacks: Any, callback: Callable[..., Any]) -> None:
        """Append to a list of callbacks, such as ``viewer.mouse_drag_callbacks``."""
        callbacks.append(callback)

        def remove() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        self._undo.append(remove)

    def on_disconnect(self, undo: Callable[[], Any]) -> None:
        """Call ``undo`` in `disconnect_all`."""
        self._undo.append(undo)

    def disconnect_all(self) -> None:
        """End all connections, the last one first."""
        while self._undo:
            self._undo.pop()()


def call_once(*callbacks: Callable[[], None]) -> Callable[[], None]:
    """Return a function that runs all callbacks on its first call and nothing later.

    A panel is closed in several ways, some of which follow one another.
    """
    left = list(callbacks)

    def call() -> None:
        while left:
            left.pop(0)()

    return call


class Debouncer:
    """Calls ``slot`` a while after the last `start`.

    Unlike a QTimer object it cannot be deleted by Qt before its owner.
    """

    def __init__(self, milliseconds: int, slot: Callable[[], None]) -> None:
        self._milliseconds, self._slot = milliseconds, slot
        self._start_count = 0
        self.active = False

    def start(self) -> None:
        """Start, or start again."""
        self._start_count += 1
        self.active = True
        QTimer.singleShot(self._milliseconds, partial(self._fire, self._start_count))

    def stop(self) -> None:
        """Drop the pending call."""
        self.active = False

    def _fire(self, start: int) -> None:
        if self.active and start == self._start_count:
            self.active = False
            self._slot()
