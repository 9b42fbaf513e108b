"""Small helpers for Qt widgets: shrinkable combo boxes, collapsible sections, docks."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QDockWidget, QSizePolicy, QWidget
from superqt import QCollapsible


def make_shrinkable(combo_box: QComboBox) -> None:
    """Let long entries be cut off in the closed box; the open list shows them whole."""
    combo_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo_box.setMinimumContentsLength(8)
    combo_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


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
