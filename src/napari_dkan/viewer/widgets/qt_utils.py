"""Small helpers for Qt widgets: shrinkable combo boxes, rows and columns, docks."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDockWidget,
    QHBoxLayout,
    QLabel,
    QLayout,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from .paced_progress_bar import PacedProgressBar


def make_text_label(text: str = "", selectable: bool = False) -> QLabel:
    """Make a label that wraps its text, which can be selectable with the mouse."""
    label = QLabel(text)
    label.setWordWrap(True)
    if selectable:
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def escape_ampersand(name: str) -> str:
    """Double the ampersands of a name, of which Qt makes shortcuts in menus and buttons."""
    return name.replace("&", "&&")


def make_progress_bar() -> PacedProgressBar:
    """Make a thin progress bar without text."""
    bar = PacedProgressBar()
    bar.setTextVisible(False)
    bar.setMaximumHeight(8)
    return bar


SWATCH_PX, SWATCH_EDGE = 12, "#808080"


def make_swatch(color: QColor) -> QIcon:
    """Return a small square of a colour, for the rows of a list; its edge is seen in all themes."""
    pixels = QPixmap(SWATCH_PX, SWATCH_PX)
    pixels.fill(color)
    painter = QPainter(pixels)
    painter.setPen(QColor(SWATCH_EDGE))
    painter.drawRect(0, 0, SWATCH_PX - 1, SWATCH_PX - 1)
    painter.end()
    return QIcon(pixels)


def make_row(*widgets: QWidget | tuple[QWidget, int]) -> QHBoxLayout:
    """Put widgets side by side, each alone or with its stretch."""
    row = QHBoxLayout()
    for item in widgets:
        widget, stretch = item if isinstance(item, tuple) else (item, 0)
        row.addWidget(widget, stretch)
    return row


def fill_column(parent: QWidget, *items: QWidget | QLayout) -> QVBoxLayout:
    """Stack widgets and layouts in a widget, without margins."""
    column = QVBoxLayout(parent)
    column.setContentsMargins(0, 0, 0, 0)
    for item in items:
        if isinstance(item, QWidget):
            column.addWidget(item)
        else:
            column.addLayout(item)
    return column


def make_shrinkable(combo_box: QComboBox) -> None:
    """Let a combo box cut off long entries; its open list shows them in full."""
    combo_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo_box.setMinimumContentsLength(8)
    combo_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


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


def set_tab_title(widget: QWidget, title: str) -> None:
    """Give the dock of a widget a short title, which its tab shows; in the menu it keeps its name.

    Four docks by their full names do not fit side by side, and Qt would cut all of them.
    """
    dock = find_dock(widget)
    if dock is not None and dock.windowTitle() != title:
        name = dock.toggleViewAction().text()
        dock.setWindowTitle(title)
        dock.toggleViewAction().setText(name)
