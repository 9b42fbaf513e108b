"""Histogram of values with two limits that are dragged, and marks of single tiles and regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import (
    QColor,
    QFocusEvent,
    QFont,
    QKeyEvent,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
)
from qtpy.QtWidgets import QToolTip, QWidget

from .correlation_plots import ALIGN_CENTER, ALIGN_LEFT, ALIGN_RIGHT, make_painter, round_ticks

BAR_COLOR = QColor("#8c6bb1")
TILE_COLOR = QColor("#e8735a")
GRAB_PX = 8  # largest distance of a press from a limit
STRIP_HEIGHT = 5  # of the colours
MARK_HEIGHT = 6  # of the row of a region
KEY_STEPS = 100  # steps of the arrow keys over the axis; Shift: ten at once
MARGIN = 0.03  # of the axis beyond values and limits
FAINT_ALPHA = 70


@dataclass(frozen=True)
class HistogramMark:
    """A region's quartiles: a bar from low to high with a dot at the middle."""

    low: float
    middle: float
    high: float
    color: QColor
    text: str


@dataclass(frozen=True, eq=False)
class HistogramContent:
    """What the histogram shows.

    Attributes
    ----------
    edges : (B + 1,) array
    counts : (B,) array
    heights : (B,) array
        From 0 to 1.
    title : str
    colors : (C, 4) array
        The colormap from the lower to the upper limit, in 0 to 1.
    tile : float
        Value of the clicked tile; NaN for none.
    tile_text : str
    marks : tuple of HistogramMark
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    heights: NDArray[np.float64]
    title: str
    colors: NDArray[np.floating]
    tile: float = float("nan")
    tile_text: str = ""
    marks: tuple[HistogramMark, ...] = ()


class ValueHistogramPlot(QWidget):
    """Counts on a log axis; the colours run from one limit to the other.

    Attributes
    ----------
    limits : tuple of float
    """

    limits_dragged = Signal(float, float)  # while the button is held
    limits_chosen = Signal(float, float)
    limits_reset = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.limits = (0.0, 1.0)
        self._content: HistogramContent | None = None
        self._axis = (0.0, 1.0)
        self._active = 1  # the limit that the keys move: 0 lower, 1 upper
        self._held: int | None = None
        self._before = self.limits  # the drag
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Histogram of the shown gene, with the limits of its colours")
        self._fix_height()

    def sizeHint(self) -> QSize:
        return QSize(240, self.minimumHeight())

    def set_content(self, content: HistogramContent | None) -> None:
        """Show values; None for nothing."""
        self._content = content
        self._fix_height()
        self._fit_axis()

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Move the limits, unless one of them is being dragged."""
        if self._held is None and limits != self.limits:
            self.limits = limits
            self._fit_axis()

    def x_of(self, value: float) -> float:
        """Return the position of a value on the widget."""
        plot, (low, high) = self._plot_rect(), self._axis
        return float(plot.left() + (value - low) / (high - low) * plot.width())

    def _value_at(self, x: float) -> float:
        plot, (low, high) = self._plot_rect(), self._axis
        return low + float(np.clip((x - plot.left()) / plot.width(), 0, 1)) * (high - low)

    def _line(self) -> int:
        return self.fontMetrics().height()

    def _fix_height(self) -> None:
        n_marks = 0 if self._content is None else len(self._content.marks)
        height = round(2.1 * self._line() + 34 + STRIP_HEIGHT + n_marks * MARK_HEIGHT)
        if height != self.minimumHeight():
            self.setFixedHeight(height)

    def _fit_axis(self) -> None:
        """Let the axis hold all values and both limits; it stands still during a drag."""
        if self._held is None:
            ends = list(self.limits)
            if self._content is not None:
                ends += [float(self._content.edges[0]), float(self._content.edges[-1])]
                ends += [self._content.tile] * bool(np.isfinite(self._content.tile))
            low, high = min(ends), max(ends)
            margin = max(high - low, 1e-6) * MARGIN
            self._axis = low - margin, high + margin
        self.update()

    def _plot_rect(self) -> QRectF:
        """The bars, with the rows of the regions above them."""
        line, left = self._line(), 2.2 * self._line()
        top = line + 2.0
        return QRectF(
            left, top, self.width() - left - 8, self.height() - top - line - STRIP_HEIGHT - 3
        )

    # ---- mouse and keys --------------------------------------------------------------

    def _limit_near(self, x: float) -> int | None:
        distance = [abs(self.x_of(limit) - x) for limit in self.limits]
        if min(distance) > GRAB_PX:
            return None
        if abs(distance[0] - distance[1]) < 1:  # on one another: away from the other one
            return int(x >= self.x_of(self.limits[0]))
        return int(distance[1] < distance[0])

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton or self._content is None:
            return
        self._held = self._limit_near(event.position().x())
        self._before = self.limits
        if self._held is not None:
            self._active = self._held
            self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        x = event.position().x()
        if self._held is not None:
            self._move(self._held, self._value_at(x))
            self.limits_dragged.emit(*self.limits)
            QToolTip.showText(
                event.globalPosition().toPoint(), f"{self.limits[self._held]:.2f}", self
            )
            return
        near = self._limit_near(x) is not None and self._content is not None
        self.setCursor(Qt.CursorShape.SizeHorCursor if near else Qt.CursorShape.ArrowCursor)
        QToolTip.showText(event.globalPosition().toPoint(), self.describe(x), self)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self._held is not None:
            self._held = None
            if self.limits != self._before:
                self.limits_chosen.emit(*self.limits)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self._held = None
        self.limits_reset.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Down and Up choose a limit, Left and Right move it, Backspace resets both."""
        key = Qt.Key(event.key())
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(key)
        choice = {Qt.Key.Key_Down: 0, Qt.Key.Key_Up: 1}.get(key)
        if step is not None:
            fast = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            size = (self._axis[1] - self._axis[0]) / KEY_STEPS
            self._move(self._active, self.limits[self._active] + step * size * (10 if fast else 1))
            self.limits_chosen.emit(*self.limits)
        elif choice is not None:
            self._active = choice
            self.update()
        elif key in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            self.limits_reset.emit()
        else:
            super().keyPressEvent(event)

    def _move(self, which: int, value: float) -> None:
        """Move a limit, but never past the other one."""
        gap = (self._axis[1] - self._axis[0]) / (2 * KEY_STEPS)
        low, high = self.limits
        self.limits = (min(value, high - gap), high) if which == 0 else (low, max(value, low + gap))
        self.update()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.update()

    def describe(self, x: float) -> str:
        """Return what is at a position: the bin, the clicked tile, the regions, how to use it."""
        content = self._content
        if content is None:
            return ""
        value = self._value_at(x)
        edges = content.edges
        lines = []
        if edges[0] <= value <= edges[-1]:
            row = min(int(np.searchsorted(edges, value, "right")) - 1, len(content.counts) - 1)
            lines.append(f"{edges[row]:.2f} to {edges[row + 1]:.2f}: {content.counts[row]:,} tiles")
        lines += [content.tile_text] * bool(content.tile_text)
        lines += [mark.text for mark in content.marks]
        lines.append("Drag a limit; double-click: back to percentiles 2 and 98.")
        lines.append("Keys: Down or Up choose a limit, Left and Right move it.")
        return "\n".join(lines)

    # ---- painting --------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        content = self._content
        if content is None:
            return
        painter, ink = make_painter(self)
        small = QFont(painter.font())
        small.setPointSizeF(max(6.0, 0.85 * small.pointSizeF()))
        painter.setFont(small)
        plot, line = self._plot_rect(), self._line()
        bars = plot.adjusted(0, len(content.marks) * MARK_HEIGHT, 0, 0)
        painter.setPen(ink)
        title = painter.fontMetrics().elidedText(
            content.title, Qt.TextElideMode.ElideMiddle, round(plot.width())
        )
        painter.drawText(QRectF(plot.left(), 0, plot.width(), line), ALIGN_LEFT, title)
        self._draw_counts(painter, ink, bars, content)
        self._draw_colors(painter, ink, plot, content)
        painter.setPen(ink)
        for tick in round_ticks(*self._axis):
            box = QRectF(self.x_of(tick) - 30, self.height() - line, 60, line)
            painter.drawText(box, ALIGN_CENTER, f"{tick:g}")
        self._draw_marks(painter, ink, plot, bars, content)
        self._draw_limits(painter, ink, plot)
        painter.end()

    def _draw_counts(
        self, painter: QPainter, ink: QColor, bars: QRectF, content: HistogramContent
    ) -> None:
        """Draw the bars and the log axis with its powers of ten."""
        line, top = self._line(), float(np.log10(1 + content.counts.max()))
        faint = QColor(ink)
        faint.setAlpha(FAINT_ALPHA)
        free = bars.bottom() + line  # the lowest place without a number
        for power in range(int(np.floor(np.log10(max(content.counts.max(), 1)))) + 1):
            y = bars.bottom() - np.log10(1 + 10**power) / top * bars.height()
            painter.setPen(QPen(faint, 1, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(bars.left(), y), QPointF(bars.right(), y))
            if y < free - 0.7 * line:
                painter.setPen(ink)
                box = QRectF(0, y - line / 2, bars.left() - 3, line)
                painter.drawText(box, ALIGN_RIGHT, f"{10**power:,}")
                free = y
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(BAR_COLOR)
        lefts = [self.x_of(float(edge)) for edge in content.edges]
        for left, right, height in zip(lefts, lefts[1:], content.heights.tolist(), strict=False):
            if height > 0:
                high = height * bars.height()
                painter.drawRect(QRectF(left, bars.bottom() - high, max(right - left, 1.0), high))

    def _draw_colors(
        self, painter: QPainter, ink: QColor, plot: QRectF, content: HistogramContent
    ) -> None:
        """Draw the colours of the map below the axis, with their ends beyond the limits."""
        gradient = QLinearGradient(self.x_of(self.limits[0]), 0, self.x_of(self.limits[1]), 0)
        for position, color in zip(
            np.linspace(0, 1, len(content.colors)), content.colors, strict=True
        ):
            gradient.setColorAt(float(position), QColor.fromRgbF(*(float(c) for c in color[:3])))
        strip = QRectF(plot.left(), plot.bottom() + 1, plot.width(), STRIP_HEIGHT)
        painter.setPen(QPen(ink, 0.5))
        painter.setBrush(gradient)
        painter.drawRect(strip)

    def _draw_marks(
        self,
        painter: QPainter,
        ink: QColor,
        plot: QRectF,
        bars: QRectF,
        content: HistogramContent,
    ) -> None:
        """Draw a row per region, and the clicked tile as a line over all."""
        for row, mark in enumerate(content.marks):
            y = plot.top() + (row + 0.5) * MARK_HEIGHT
            painter.setPen(QPen(ink, 4.5))
            painter.drawLine(QPointF(self.x_of(mark.low), y), QPointF(self.x_of(mark.high), y))
            painter.setPen(QPen(mark.color, 3))
            painter.drawLine(QPointF(self.x_of(mark.low), y), QPointF(self.x_of(mark.high), y))
            painter.setPen(QPen(ink, 1))
            painter.setBrush(mark.color)
            painter.drawEllipse(QPointF(self.x_of(mark.middle), y), 2.8, 2.8)
        if np.isfinite(content.tile):
            x = self.x_of(content.tile)
            painter.setPen(QPen(TILE_COLOR, 2))
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
            painter.setPen(QPen(ink, 0.7))
            painter.setBrush(TILE_COLOR)
            tip = QPointF(x, bars.top() + 5)
            painter.drawPolygon(QPolygonF([tip, tip + QPointF(-4, -6), tip + QPointF(4, -6)]))

    def _draw_limits(self, painter: QPainter, ink: QColor, plot: QRectF) -> None:
        """Draw the limits as lines with a grip; the one that the keys move is filled."""
        paper = self.palette().window().color()
        shade = QColor(paper)
        shade.setAlpha(150)
        low, high = (self.x_of(limit) for limit in self.limits)
        painter.fillRect(QRectF(plot.left(), plot.top(), low - plot.left(), plot.height()), shade)
        painter.fillRect(QRectF(high, plot.top(), plot.right() - high, plot.height()), shade)
        for which, x in enumerate((low, high)):
            painter.setPen(QPen(ink, 1.5))
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom() + STRIP_HEIGHT + 1))
            is_moved = which == self._held or (which == self._active and self.hasFocus())
            painter.setBrush(ink if is_moved else paper)
            painter.drawRoundedRect(QRectF(x - 3, plot.center().y() - 6, 6, 12), 2, 2)
