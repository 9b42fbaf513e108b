"""A small picture in a corner of the canvas with a frame around what is in view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRect, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
)
from qtpy.QtWidgets import QToolButton, QWidget

FRAME_COLOR, EDGE_COLOR = QColor("#e4002b"), QColor("#8a8a8a")
MIN_FRAME_PX = 6  # the frame of a strongly magnified view is drawn this large
BUTTON_SIDE = 18


class OverviewInset(QWidget):
    """The picture, or a button that shows it again after it was closed."""

    position_picked = Signal(float, float)  # x, y as fractions of the picture
    toggled = Signal(bool)  # by the user: whether the picture is shown

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._picture = QPixmap()
        self._frame: NDArray[np.float64] | None = None  # (4, 2), as fractions of the picture
        self._expanded = True
        self._max_side = 0
        self.button = QToolButton(self)
        self.button.setFixedSize(BUTTON_SIDE, BUTTON_SIDE)
        self.button.setAutoRaise(False)
        self.button.clicked.connect(self._on_button)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.button.setCursor(Qt.CursorShape.ArrowCursor)
        self._update_size()

    @property
    def has_picture(self) -> bool:
        return not self._picture.isNull()

    @property
    def expanded(self) -> bool:
        """Whether the picture is shown."""
        return self._expanded

    def set_expanded(self, expanded: bool) -> None:
        """Show the picture, or the button alone."""
        self._expanded = expanded
        self._update_size()

    def set_picture(self, rgb: NDArray[np.uint8] | None, max_side: int) -> None:
        """Show a picture (height, width, 3) of at most this many screen px; None for nothing."""
        self._max_side = max_side
        if rgb is None:
            self._picture = QPixmap()
        else:
            height, width, _ = rgb.shape
            pixels = np.ascontiguousarray(rgb)
            image = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
            self._picture = QPixmap.fromImage(image)
        self._update_size()

    def set_max_side(self, max_side: int) -> None:
        """Fit the picture into a square of screen px."""
        if max_side != self._max_side:
            self._max_side = max_side
            self._update_size()

    def set_frame(self, corners: NDArray[np.float64] | None) -> None:
        """Set the corners (4, 2) of the view as fractions (x, y) of the picture."""
        self._frame = corners
        self.update()

    def _update_size(self) -> None:
        self.button.setText(
            "\N{MULTIPLICATION SIGN}"
            if self._expanded
            else "\N{WHITE SQUARE CONTAINING BLACK SMALL SQUARE}"
        )
        self.button.setToolTip("Close the overview" if self._expanded else "Overview of the slide")
        self.setToolTip("Click to move the view" if self._expanded else "")
        if self._expanded and self.has_picture:
            size = self._picture.size()
            size.scale(self._max_side, self._max_side, Qt.AspectRatioMode.KeepAspectRatio)
            self.resize(size + QSize(2, 2))
        else:
            self.resize(BUTTON_SIDE, BUTTON_SIDE)
        self._place_button()
        self.setVisible(self.has_picture)
        self.update()

    def _place_button(self) -> None:
        self.button.move(self.width() - BUTTON_SIDE, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._place_button()
        super().resizeEvent(event)

    def _on_button(self) -> None:
        self.set_expanded(not self._expanded)
        self.toggled.emit(self._expanded)

    def _picture_rect(self) -> QRect:
        return self.rect().adjusted(1, 1, -1, -1)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pick(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._pick(event)

    def _pick(self, event: QMouseEvent) -> None:
        event.accept()  # the canvas below must not take it for a click on the slide
        rect, place = self._picture_rect(), event.position()
        if self._expanded:
            self.position_picked.emit(
                float(np.clip((place.x() - rect.left()) / rect.width(), 0, 1)),
                float(np.clip((place.y() - rect.top()) / rect.height(), 0, 1)),
            )

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._expanded or not self.has_picture:
            return
        painter, rect = QPainter(self), self._picture_rect()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawPixmap(rect, self._picture)
        painter.setPen(EDGE_COLOR)
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        if self._frame is not None:
            painter.setClipRect(rect)
            painter.setPen(QPen(FRAME_COLOR, 2))
            painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in self._frame_px(rect)]))
        painter.end()

    def _frame_px(self, rect: QRect) -> NDArray[np.float64]:
        assert self._frame is not None
        corners = self._frame * (rect.width(), rect.height()) + (rect.left(), rect.top())
        centre = corners.mean(axis=0)
        extent = float(np.ptp(corners, axis=0).max())
        return np.asarray(centre + (corners - centre) * max(1.0, MIN_FRAME_PX / max(extent, 1e-9)))
