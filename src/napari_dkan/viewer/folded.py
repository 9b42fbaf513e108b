"""Boxes behind their title, for what is seldom needed."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

MAX_WIDGET_HEIGHT = 16_777_215  # Qt's own


def make_collapsible(title: str, *boxes: QWidget) -> QCollapsible:
    """The boxes closed. Once open they may grow: their text gets longer while they work.

    Closed they are hidden as well, or Tab would lead into what nobody sees.
    """
    made = QCollapsible(title)
    made.setDuration(0)
    content, outer = made.content(), made.layout()
    inner = content.layout()
    assert outer is not None and inner is not None
    outer.setContentsMargins(0, 0, 0, 0)
    for box in boxes:
        inner.addWidget(box)

    def let_grow(opened: bool) -> None:
        content.setVisible(opened)
        content.setMaximumHeight(MAX_WIDGET_HEIGHT if opened else 0)

    made.toggled.connect(let_grow)
    content.hide()
    return made
