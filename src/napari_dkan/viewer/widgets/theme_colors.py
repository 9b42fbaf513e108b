"""Text colours that are readable on dark and light themes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QWidget


class ThemeColor(NamedTuple):
    on_dark: str
    on_light: str


ERROR_COLOR = ThemeColor("#ff9a76", "#a33600")
WARNING_COLOR = ThemeColor("#ffb74d", "#8a5200")
SUCCESS_COLOR = ThemeColor("#81c784", "#1f6b25")
LINK_COLOR = ThemeColor("#8ab4f8", "#1a56b0")


def is_dark_theme(widget: QWidget) -> bool:
    return widget.palette().color(QPalette.ColorRole.Window).lightness() < 128


def color_for_theme(widget: QWidget, color: ThemeColor) -> str:
    """The colour to use on this widget, as it is shown now."""
    return color.on_dark if is_dark_theme(widget) else color.on_light


def set_text_color(label: QLabel, color: ThemeColor | None) -> None:
    """Give a label's text this colour, in every theme; None: that of any text."""
    known = label.findChild(_ThemeChangeFilter)
    if known is None:
        known = _ThemeChangeFilter(label, lambda: None)
    known.callback = lambda: _apply_text_color(label, color)
    known.callback()


def connect_theme_change(widget: QWidget, callback: Callable[[], None]) -> None:
    """Call it when the theme has changed, for what a widget writes in colours of its own."""
    _ThemeChangeFilter(widget, callback)


def _apply_text_color(label: QLabel, color: ThemeColor | None) -> None:
    text = "" if color is None else f"color: {color_for_theme(label, color)};"
    if text != label.styleSheet():
        label.setStyleSheet(text)


class _ThemeChangeFilter(QObject):
    """Lives in its widget."""

    def __init__(self, widget: QWidget, callback: Callable[[], None]) -> None:
        super().__init__(widget)
        self.callback = callback
        self._was_dark: bool | None = None
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        shown_anew = event.type() in (QEvent.Type.StyleChange, QEvent.Type.Show)
        if shown_anew and vars(self):  # the collector empties what Qt still sends events to
            widget = self.parent()
            if isinstance(widget, QWidget) and is_dark_theme(widget) is not self._was_dark:
                self._was_dark = is_dark_theme(widget)
                self.callback()
        return super().eventFilter(watched, event)
