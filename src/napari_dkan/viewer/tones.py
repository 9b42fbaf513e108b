"""Colours of text that can be read on a dark ground and on a light one.

No one colour has a contrast of 4.5 : 1 (WCAG 2.1, 1.4.3) to both of napari's themes, so there are
two of each; a label keeps the right one when the theme changes. Words say the same as the colour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QWidget


class Tone(NamedTuple):
    on_dark: str
    on_light: str


ALARM = Tone("#ff9a76", "#a33600")
WARNING = Tone("#ffb74d", "#8a5200")
GOOD = Tone("#81c784", "#1f6b25")
LINK = Tone("#8ab4f8", "#1a56b0")


def on_dark(widget: QWidget) -> bool:
    return widget.palette().color(QPalette.ColorRole.Window).lightness() < 128


def tone_of(widget: QWidget, tone: Tone) -> str:
    """The colour to use on this widget, as it is shown now."""
    return tone.on_dark if on_dark(widget) else tone.on_light


def tint(label: QLabel, tone: Tone | None) -> None:
    """Give a label's text this colour, in every theme; None: that of any text."""
    known = label.findChild(_Follower)
    if known is None:
        known = _Follower(label, lambda: None)
    known.act = lambda: _paint(label, tone)
    known.act()


def on_theme(widget: QWidget, act: Callable[[], None]) -> None:
    """Call it when the theme has changed, for what a widget writes in colours of its own."""
    _Follower(widget, act)


def _paint(label: QLabel, tone: Tone | None) -> None:
    text = "" if tone is None else f"color: {tone_of(label, tone)};"
    if text != label.styleSheet():
        label.setStyleSheet(text)


class _Follower(QObject):
    """Lives in its widget."""

    def __init__(self, widget: QWidget, act: Callable[[], None]) -> None:
        super().__init__(widget)
        self.act = act
        self._was: bool | None = None
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        shown_anew = event.type() in (QEvent.Type.StyleChange, QEvent.Type.Show)
        if shown_anew and vars(self):  # the collector empties what Qt still sends events to
            widget = self.parent()
            if isinstance(widget, QWidget) and on_dark(widget) is not self._was:
                self._was = on_dark(widget)
                self.act()
        return super().eventFilter(watched, event)
