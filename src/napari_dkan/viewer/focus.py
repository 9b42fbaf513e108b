"""A ring around the control that has the keyboard: napari's themes show none."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QRect, QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QApplication, QWidget

from .tones import LINK, tone_of

ROOM = 2  # px around the control


class FocusRing(QWidget):
    """Lies over a panel's content, and lets everything through."""

    def __init__(self, content: QWidget) -> None:
        super().__init__(content)
        self._content = content
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._lay)
        content.installEventFilter(self)
        app = QApplication.instance()
        if isinstance(app, QApplication):
            app.focusChanged.connect(self._moved)

    def _moved(self, old: QWidget | None, new: QWidget | None) -> None:
        """Shown where the keyboard went, not where a mouse button did."""
        by_mouse = QApplication.mouseButtons() != Qt.MouseButton.NoButton
        self.setVisible(new is not None and not by_mouse and self._content.isAncestorOf(new))
        self._lay()

    def _lay(self) -> None:
        widget = QApplication.focusWidget()
        if widget is None or not self._content.isAncestorOf(widget):
            self.hide()
        elif not self.isHidden():
            corner = widget.mapTo(self._content, widget.rect().topLeft())
            room = QRect(corner, widget.size()).adjusted(-ROOM, -ROOM, ROOM, ROOM)
            self.setGeometry(room.intersected(self._content.rect()))
            self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Controls move when another one comes or goes."""
        moved = event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize)
        if moved and vars(self):  # the collector empties what Qt still sends events to
            self._soon.start(0)
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(tone_of(self, LINK)), 2))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 3, 3)
        painter.end()
