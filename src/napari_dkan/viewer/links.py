"""The connections of one panel, so that all of them can be cut, once, when the panel goes.

The session outlives its panels; a slot of a deleted widget must not be called by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
