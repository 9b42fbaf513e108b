"""Plots of a comparison: histogram of the gene correlations and scatter plot of one gene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QToolTip, QWidget

PREDICTED_COLOR = QColor("#8c6bb1")
RIDGE_COLOR = QColor("#e0a030")
SELECTED_COLOR = QColor("#e8735a")
BIN_WIDTH = 0.05
PICK_RADIUS_PX = 9  # largest distance of a click from a dot

ALIGN_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
ALIGN_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
ALIGN_CENTER = Qt.AlignmentFlag.AlignCenter


def find_dot(dots: NDArray[np.float64], position: QPointF) -> int | None:
    """Return the row of the dot (N, 2) nearest to a position; None beyond `PICK_RADIUS_PX`."""
    distance = np.hypot(*(dots - [position.x(), position.y()]).T)
    distance[~np.isfinite(distance)] = np.inf
    row = int(np.argmin(distance))
    return row if distance[row] <= PICK_RADIUS_PX else None


class CorrelationHistogram(QWidget):
    """Histogram of the correlations of genes: the method as bars, ridge as an outline."""

    def __init__(self) -> None:
        super().__init__()
        self.pcc, self.ridge = np.empty(0), np.empty(0)
        self.marked_pcc = float("nan")
        self.method = "DKAN"
        self.setMinimumHeight(112)
        self.setToolTip(
            "Genes by their correlation between measured and predicted values, with the number of "
            "molecules of each spot regressed out. Filled: the model; outline: the ridge baseline "
            "on the same tiles; line: the chosen gene."
        )

    def sizeHint(self) -> QSize:
        return QSize(260, 120)

    def set_correlations(
        self, pcc: NDArray[np.floating], ridge: NDArray[np.floating], method: str = "DKAN"
    ) -> None:
        """Show correlations (G,) of a method and of ridge without NaN; ridge may be empty."""
        self.pcc, self.ridge = pcc[~np.isnan(pcc)], ridge[~np.isnan(ridge)]
        self.method = method
        self.update()

    def set_marked_pcc(self, pcc: float) -> None:
        """Mark the correlation of the current gene; NaN for none."""
        self.marked_pcc = pcc
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if not len(self.pcc):
            return
        painter, ink = make_painter(self)
        line = self.fontMetrics().height()
        plot = QRectF(14, line + 4, self.width() - 28, self.height() - 2 * line - 8)
        low = np.floor(min(0.0, self.pcc.min(), self.ridge.min(initial=0.0)) / 0.1) * 0.1
        edges = np.linspace(low, 1, round((1 - low) / BIN_WIDTH) + 1)
        bars, outline = (np.histogram(v, edges)[0] for v in (self.pcc, self.ridge))
        top = max(1, bars.max(), outline.max(initial=0))
        width = plot.width() / (len(edges) - 1)

        def x(value: float) -> float:
            return float(plot.left() + (value - low) / (1 - low) * plot.width())

        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(PREDICTED_COLOR)
        for i, count in enumerate(bars):
            height = plot.height() * count / top
            painter.drawRect(QRectF(x(edges[i]) + 0.5, plot.bottom() - height, width - 1, height))
        if len(self.ridge):
            steps = np.repeat(plot.bottom() - plot.height() * outline / top, 2)
            along = np.repeat([x(e) for e in edges], 2)[1:-1]
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(RIDGE_COLOR, 1.5))
            painter.drawPolyline(_make_polygon(along, steps))
        painter.setPen(QPen(ink, 1))
        painter.drawLine(QPointF(plot.left(), plot.bottom()), QPointF(plot.right(), plot.bottom()))
        for tick in np.arange(np.ceil(low / 0.2 - 1e-9) * 0.2, 1.01, 0.2):
            box = QRectF(x(tick) - 20, plot.bottom() + 2, 40, line)
            painter.drawText(box, ALIGN_CENTER, f"{tick:.1f}" if abs(tick) > 1e-9 else "0")
        if np.isfinite(self.marked_pcc):
            painter.setPen(QPen(SELECTED_COLOR, 2))
            marked = x(float(np.clip(self.marked_pcc, low, 1)))
            painter.drawLine(QPointF(marked, plot.top()), QPointF(marked, plot.bottom()))
        self._draw_legend(painter, ink, line)
        painter.end()

    def _draw_legend(self, painter: QPainter, ink: QColor, line: int) -> None:
        """Draw the names of the methods with their colours, and the number of genes."""
        left, gap = 8.0, 14
        entries = [(PREDICTED_COLOR, f"{self.method}, {len(self.pcc):,} genes")]
        if len(self.ridge):
            entries.append((RIDGE_COLOR, "ridge"))
        if np.isfinite(self.marked_pcc):
            entries.append((SELECTED_COLOR, "this gene"))
        for color, text in entries:
            painter.fillRect(QRectF(left, line / 2 - 3, 8, 8), color)
            painter.setPen(ink)
            width = self.fontMetrics().horizontalAdvance(text)
            painter.drawText(QRectF(left + 12, 0, width + 2, line), ALIGN_LEFT, text)
            left += 12 + width + gap


class MeasuredPredictedScatter(QWidget):
    """Scatter plot of measured (x) and predicted (y) values; a click chooses the nearest spot."""

    spot_selected = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._measured: NDArray[np.floating] = np.empty(0)
        self._predicted: NDArray[np.floating] = np.empty(0)
        self._selected_row: int | None = None
        self._names: tuple[str, ...] = ()
        self.setMinimumHeight(220)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def sizeHint(self) -> QSize:
        return QSize(260, 250)

    def set_values(
        self,
        measured: NDArray[np.floating],
        predicted: NDArray[np.floating],
        names: tuple[str, ...] = (),
    ) -> None:
        """Show values (N,); a spot without one of them is not drawn."""
        self._measured, self._predicted, self._names = measured, predicted, names
        self.update()

    def select_row(self, row: int | None) -> None:
        self._selected_row = row
        self.update()

    def dot_positions(self) -> NDArray[np.float64]:
        """Return the positions of the spots on the widget, (N, 2), NaN for unknown values."""
        plot, (low, high) = self._plot_rect(), self._value_range()
        span = high - low
        x = plot.left() + (self._measured - low) / span * plot.width()
        y = plot.bottom() - (self._predicted - low) / span * plot.height()
        return np.stack([x, y], axis=1)

    def _plot_rect(self) -> QRectF:
        line = self.fontMetrics().height()
        left, top = 3.2 * line, 6
        return QRectF(left, top, self.width() - left - 8, self.height() - top - 2.3 * line)

    def _value_range(self) -> tuple[float, float]:
        """Range of both axes, so that the identity line is the diagonal."""
        values = np.concatenate([self._measured, self._predicted])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        margin = max(high - low, 0.1) * 0.04
        return low - margin, high + margin

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = self._row_at(event)
        if row is not None:
            self.spot_selected.emit(row)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Choose the spot with the next lower or higher measured value by the arrow keys."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        known = np.flatnonzero(np.isfinite(self._measured + self._predicted))
        if step is None or not len(known):
            super().keyPressEvent(event)
            return
        order = known[np.argsort(self._measured[known], kind="stable")].tolist()
        index = order.index(self._selected_row) + step if self._selected_row in order else 0
        self.spot_selected.emit(order[index % len(order)])

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        row = self._row_at(event)
        if row is None:
            QToolTip.hideText()
            return
        name = f"Spot {self._names[row]}" if self._names else f"Spot {row + 1}"
        values = f"measured {self._measured[row]:.2f}, predicted {self._predicted[row]:.2f}"
        QToolTip.showText(event.globalPosition().toPoint(), f"{name}\n{values}", self)

    def leaveEvent(self, event: QEvent) -> None:
        QToolTip.hideText()

    def _row_at(self, event: QMouseEvent) -> int | None:
        return find_dot(self.dot_positions(), event.position()) if len(self._measured) else None

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, ink = make_painter(self)
        plot, (low, high) = self._plot_rect(), self._value_range()
        line = self.fontMetrics().height()
        faint = QColor(ink)
        faint.setAlpha(90)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(plot)
        painter.setPen(QPen(faint, 1, Qt.PenStyle.DashLine))
        painter.drawLine(plot.bottomLeft(), plot.topRight())
        painter.setPen(ink)
        for tick in round_ticks(low, high):
            fraction = (tick - low) / (high - low)
            x, y = plot.left() + fraction * plot.width(), plot.bottom() - fraction * plot.height()
            painter.drawText(QRectF(x - 30, plot.bottom() + 1, 60, line), ALIGN_CENTER, f"{tick:g}")
            painter.drawText(
                QRectF(line, y - line / 2, plot.left() - line - 4, line), ALIGN_RIGHT, f"{tick:g}"
            )
        below = QRectF(plot.left(), plot.bottom() + line, plot.width(), line + 2)
        painter.drawText(below, ALIGN_CENTER, "measured")
        painter.save()
        painter.translate(0, plot.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-60, 0, 120, line + 2), ALIGN_CENTER, "predicted")
        painter.restore()
        if len(self._measured):
            self._draw_dots(painter, ink)
        painter.end()

    def _draw_dots(self, painter: QPainter, ink: QColor) -> None:
        dots = self.dot_positions()
        known = np.asarray(np.isfinite(dots).all(axis=1))
        color = QColor(PREDICTED_COLOR)
        color.setAlpha(210 if known.sum() < 1000 else 120)
        size = 5 if known.sum() < 1000 else 3
        painter.setPen(QPen(color, size, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
        painter.drawPoints(_make_polygon(*dots[known].T))
        row = self._selected_row
        if row is not None and row < len(dots) and known[row]:
            painter.setPen(QPen(ink, 1.5))
            painter.setBrush(SELECTED_COLOR)
            painter.drawEllipse(QPointF(*dots[row]), 5, 5)


def make_painter(widget: QWidget) -> tuple[QPainter, QColor]:
    """A painter, and the text colour of the current theme."""
    painter = QPainter(widget)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return painter, widget.palette().windowText().color()


def _make_polygon(x: NDArray[np.floating], y: NDArray[np.floating]) -> QPolygonF:
    return QPolygonF([QPointF(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)])


def round_ticks(low: float, high: float) -> list[float]:
    """Four to six round numbers in a range."""
    min_step = (high - low) / 4.5
    unit = 10 ** np.floor(np.log10(min_step))
    step = float(unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= min_step))
    first = np.ceil(low / step)
    count = int(np.floor(high / step) - first) + 1
    return [round(float((first + i) * step), 10) for i in range(count)]
