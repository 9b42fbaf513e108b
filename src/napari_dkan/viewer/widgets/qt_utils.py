"""Small helpers for Qt widgets: shrinkable combo boxes, collapsible sections, docks."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QDockWidget, QSizePolicy, QWidget
from superqt import QCollapsible


def make_shrinkable(combo_box: QComboBox) -> None:
    """Let a combo box cut off long entries; its open list shows them in full."""
    combo_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo_box.setMinimumContentsLength(8)
    combo_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


MAX_WIDGET_HEIGHT = 16_777_215  # QWIDGETSIZE_MAX


def make_collapsible(title: str, *boxes: QWidget) -> QCollapsible:
    """Return a collapsed section of boxes.

    An open section may grow with its text. The content of a closed one is hidden, or Tab would
    move the focus into it.
    """
    section = QCollapsible(title)
    section.setDuration(0)
    content, outer = section.content(), section.layout()
    inner = content.layout()
    assert outer is not None and inner is not None
    outer.setContentsMargins(0, 0, 0, 0)
    for box in boxes:
        inner.addWidget(box)

    def on_toggled(opened: bool) -> None:
        content.setVisible(opened)
        content.setMaximumHeight(MAX_WIDGET_HEIGHT if opened else 0)

    section.toggled.connect(on_toggled)
    content.hide()
    return section


def raise_dock(widget: QWidget) -> None:
    """Bring the dock of a widget to the front of its tabs."""
    dock = find_dock(widget)
    if dock is not None:
        dock.show()
        dock.raise_()


def find_dock(widget: QWidget) -> QDockWidget | None:
    """Return the dock of a widget; None if it is not docked."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
