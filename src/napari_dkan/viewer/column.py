"""A column of boxes that scrolls up and down only, and the headings in it."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QStyle, QWidget

from .focus import FocusRing
from .help import make_help_button


class ScrollColumn(QScrollArea):
    """Never narrower than its content, so that nothing is cut off at the side."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        content.installEventFilter(self)
        self.focus_ring = FocusRing(content)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        content = self.widget()  # Qt's, and not an attribute: the collector may have emptied self
        if watched is content and event.type() == QEvent.Type.LayoutRequest:
            width = content.minimumSizeHint().width()
            bar = self.verticalScrollBar().sizeHint().width()
            gap = QStyle.PixelMetric.PM_ScrollView_ScrollBarSpacing
            frame = 2 * self.frameWidth()  # napari's theme gives it one all the same
            self.setMinimumWidth(width + bar + self.style().pixelMetric(gap, None, self) + frame)
        return super().eventFilter(watched, event)


def make_heading(text: str, topic: str = "") -> QWidget:
    """The heading of a box, and a button with the help on it where there is a topic."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    if not topic:
        return label
    row = QWidget()
    line = QHBoxLayout(row)
    line.setContentsMargins(0, 0, 0, 0)
    line.addWidget(label, 1)
    line.addWidget(make_help_button(topic))
    return row
