"""Text colours that are readable on dark and light themes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QWidget


class ThemeColor(NamedTuple):
    """A text colour for dark and for light themes."""

    on_dark: str
    on_light: str


ERROR_COLOR = ThemeColor("#ff9a76", "#a33600")
WARNING_COLOR = ThemeColor("#ffb74d", "#8a5200")
SUCCESS_COLOR = ThemeColor("#81c784", "#1f6b25")
LINK_COLOR = ThemeColor("#8ab4f8", "#1a56b0")


def is_dark_theme(widget: QWidget) -> bool:
    """Return whether the widget has a dark background."""
    return widget.palette().color(QPalette.ColorRole.Window).lightness() < 128


def color_for_theme(widget: QWidget, color: ThemeColor) -> str:
    """Return the variant of a colour for the widget's current theme."""
    return color.on_dark if is_dark_theme(widget) else color.on_light


def set_text_color(label: QLabel, color: ThemeColor | None) -> None:
    """Set the text colour of a label for all themes; None for the default colour."""
    event_filter = label.findChild(_ThemeChangeFilter)
    if event_filter is None:
        event_filter = _ThemeChangeFilter(label, lambda: None)
    event_filter.callback = lambda: _apply_text_color(label, color)
    event_filter.callback()


def connect_theme_change(widget: QWidget, callback: Callable[[], None]) -> None:
    """Call ``callback`` when the theme of a widget has changed."""
    _ThemeChangeFilter(widget, callback)


def _apply_text_color(label: QLabel, color: ThemeColor | None) -> None:
    text = "" if color is None else f"color: {color_for_theme(label, color)};"
    if text != label.styleSheet():
        label.setStyleSheet(text)


class _ThemeChangeFilter(QObject):
    """Owned by its widget."""

    def __init__(self, widget: QWidget, callback: Callable[[], None]) -> None:
        super().__init__(widget)
        self.callback = callback
        self._was_dark: bool | None = None
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        may_differ = event.type() in (QEvent.Type.StyleChange, QEvent.Type.Show)
        # Qt sends events to objects that the garbage collector has already cleared.
        if may_differ and vars(self):
            widget = self.parent()
            if isinstance(widget, QWidget) and is_dark_theme(widget) is not self._was_dark:
                self._was_dark = is_dark_theme(widget)
                self.callback()
        return super().eventFilter(watched, event)
