"""A column of boxes that scrolls vertically only, and its focus ring.

napari's themes do not show which control has the keyboard focus, so a ring is drawn around it.
"""

from __future__ import annotations

from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QRect, QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QShowEvent
from qtpy.QtWidgets import QApplication, QFrame, QScrollArea, QStyle, QWidget

from .qt_utils import set_tab_title
from .theme_colors import LINK_COLOR, color_for_theme

MARGIN_PX = 2  # around the control
SETTLE_MS = 2_000  # in which boxes above a revealed one may still appear


class FocusRing(QWidget):
    """A frame around the focused control; an overlay of a panel that ignores the mouse."""

    is_passing = False  # the program moves the focus; see `pass_focus`

    def __init__(self, content: QWidget) -> None:
        super().__init__(content)
        self._content = content
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()
        self._update_timer = QTimer(self)
        self._update_timer.setSingleShot(True)
        self._update_timer.timeout.connect(self._update_geometry)
        content.installEventFilter(self)
        app = QApplication.instance()
        if isinstance(app, QApplication):
            app.focusChanged.connect(self._on_focus_changed)

    def _on_focus_changed(self, old: QWidget | None, new: QWidget | None) -> None:
        """Show the ring if the focus was moved with the keyboard."""
        by_mouse = QApplication.mouseButtons() != Qt.MouseButton.NoButton
        # Pressed with the mouse, a control may hide itself: Qt gives the focus to the next one.
        alive = old is not None and isalive(old)  # type: ignore[no-untyped-call]
        is_gone = alive and old is not None and not old.isVisibleTo(old.window())
        is_passed = FocusRing.is_passing or is_gone
        shown = not self.isHidden() if is_passed else not by_mouse
        self.setVisible(new is not None and shown and self._content.isAncestorOf(new))
        self._update_geometry()

    def _update_geometry(self) -> None:
        widget = QApplication.focusWidget()
        if widget is None or not self._content.isAncestorOf(widget):
            self.hide()
        elif not self.isHidden():
            corner = widget.mapTo(self._content, widget.rect().topLeft())
            frame = QRect(corner, widget.size()).adjusted(
                -MARGIN_PX, -MARGIN_PX, MARGIN_PX, MARGIN_PX
            )
            self.setGeometry(frame.intersected(self._content.rect()))
            self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow controls that move."""
        moved = event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize)
        # Qt sends events to objects that the garbage collector has already cleared.
        if moved and vars(self):
            self._update_timer.start(0)
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(color_for_theme(self, LINK_COLOR)), 2))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 3, 3)
        painter.end()


def pass_focus(to: QWidget) -> None:
    """Move the focus away from a control that is about to be disabled.

    The ring goes along but does not appear, for whoever uses the mouse.
    """
    FocusRing.is_passing = True
    try:
        to.setFocus()
    finally:
        FocusRing.is_passing = False


class ScrollColumn(QScrollArea):
    """A vertical scroll area that is never narrower than its content.

    Parameters
    ----------
    content
    tab_title
        Of the tab of its dock; empty leaves that as it is.

    Attributes
    ----------
    scroll_count : int
        How often the user has scrolled.
    """

    def __init__(self, content: QWidget, tab_title: str = "") -> None:
        super().__init__()
        self._tab_title = tab_title
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        content.installEventFilter(self)
        self.focus_ring = FocusRing(content)
        self.scroll_count = 0
        self._revealed: QWidget | None = None
        self._settle_timer, self._reveal_timer = QTimer(self), QTimer(self)
        for timer, slot in (
            (self._settle_timer, self._let_go),
            (self._reveal_timer, self._reveal_again),
        ):
            timer.setSingleShot(True)
            timer.timeout.connect(slot)
        self.verticalScrollBar().actionTriggered.connect(self._on_user_scrolled)  # the wheel too

    def reveal(self, box: QWidget) -> None:
        """Scroll no further than needed to see a box; its top, if it is higher than the column.

        It is kept in sight while boxes above it still grow, unless the user scrolls.
        """
        self._revealed = box
        self._settle_timer.start(SETTLE_MS)
        self._scroll_to(box)

    def _on_user_scrolled(self, action: int) -> None:
        self.scroll_count += 1
        self._let_go()

    def _let_go(self) -> None:
        self._revealed = None

    def _reveal_again(self) -> None:
        if self._revealed is not None:
            self._scroll_to(self._revealed)

    def _scroll_to(self, box: QWidget) -> None:
        content = self.widget()
        if content is None or not content.isAncestorOf(box):
            return
        # Boxes that have just been shown get their places first.
        QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest.value)
        top = box.mapTo(content, box.rect().topLeft()).y()
        bar, lowest = self.verticalScrollBar(), top + box.height() - self.viewport().height()
        bar.setValue(min(max(bar.value(), lowest), top))

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._tab_title:
            set_tab_title(self, self._tab_title)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        content = self.widget()  # not an attribute: the garbage collector may have cleared them
        changes = (QEvent.Type.LayoutRequest, QEvent.Type.Resize)
        is_revealing = vars(self).get("_revealed") is not None
        if watched is content and event.type() in changes and is_revealing:
            self._reveal_timer.start(0)  # after the layout
        if watched is content and event.type() == QEvent.Type.LayoutRequest:
            width = content.minimumSizeHint().width()
            bar = self.verticalScrollBar().sizeHint().width()
            gap = QStyle.PixelMetric.PM_ScrollView_ScrollBarSpacing
            frame = 2 * self.frameWidth()  # from napari's theme
            self.setMinimumWidth(width + bar + self.style().pixelMetric(gap, None, self) + frame)
        return super().eventFilter(watched, event)


def find_column(box: QWidget) -> ScrollColumn | None:
    """Return the column that a box is in, if any."""
    parent = box.parentWidget()
    while parent is not None and not isinstance(parent, ScrollColumn):
        parent = parent.parentWidget()
    return parent
