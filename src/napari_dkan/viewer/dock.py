"""The dock a panel lies in."""

from __future__ import annotations

from qtpy.QtWidgets import QDockWidget, QWidget


def raise_dock(widget: QWidget) -> None:
    """Bring the panel a widget is part of in front of those it shares its place with."""
    dock = find_dock(widget)
    if dock is not None:
        dock.show()
        dock.raise_()


def find_dock(widget: QWidget) -> QDockWidget | None:
    """None where it is not docked, or no longer."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
