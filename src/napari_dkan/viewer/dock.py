"""The dock a panel lies in."""

from __future__ import annotations

from qtpy.QtWidgets import QDockWidget, QWidget


def raised(widget: QWidget) -> None:
    """Bring the panel a widget is part of in front of those it shares its place with."""
    dock = dock_of(widget)
    if dock is not None:
        dock.show()
        dock.raise_()


def dock_of(widget: QWidget) -> QDockWidget | None:
    """None where it is not docked, or no longer."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
