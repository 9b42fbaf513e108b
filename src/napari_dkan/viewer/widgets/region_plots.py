"""Plots of a comparison of regions: volcano plot of the genes, box plots of one gene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QToolTip, QWidget

from .correlation_plots import (
    ALIGN_CENTER,
    ALIGN_LEFT,
    ALIGN_RIGHT,
    SELECTED_COLOR,
    find_dot,
    make_painter,
    round_ticks,
)

SIGNIFICANT_COLOR = QColor("#8c6bb1")
FAINT_ALPHA = 110
MAX_NAMES = 10
MAX_COVERED_DOTS = 1  # by a name
MAX_DOTS = 300  # tiles drawn beside a box
WHISKER_PERCENTILES = 5.0, 25.0, 50.0, 75.0, 95.0


class VolcanoPlot(QWidget):
    """Genes by their difference (x) and evidence (y); a click chooses the nearest."""

    gene_selected = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._symbols: tuple[str, ...] = ()
        self._x, self._y = np.empty(0), np.empty(0)
        self._highlighted = np.empty(0, bool)
        self._x_label = self._y_label = ""
        self._selected: str | None = None
        self.setMinimumHeight(210)
        self.setMouseTracking(True)

    def sizeHint(self) -> QSize:
        return QSize(300, 230)

    def set_genes(
        self,
        symbols: tuple[str, ...],
        x: NDArray[np.floating],
        y: NDArray[np.floating],
        highlighted: NDArray[np.bool_],
        x_label: str,
        y_label: str,
    ) -> None:
        """Show G genes; those without a value are not drawn."""
        self._symbols, self._x, self._y = symbols, np.asarray(x), np.asarray(y)
        self._highlighted, self._x_label, self._y_label = highlighted, x_label, y_label
        self.update()

    def select(self, symbol: str | None) -> None:
        """Mark a gene."""
        self._selected = symbol
        self.update()

    def dot_positions(self) -> NDArray[np.float64]:
        """Return the positions of the genes on the widget, (G, 2)."""
        plot, (reach, top) = self._plot_rect(), self._ranges()
        x = plot.center().x() + self._x / reach * plot.width() / 2
        y = plot.bottom() - self._y / top * plot.height()
        return np.stack([x, y], axis=1)

    def _plot_rect(self) -> QRectF:
        line = self.fontMetrics().height()
        left, top = 2.9 * line, line + 4.0
        return QRectF(left, top, self.width() - left - 8, self.height() - top - 2.2 * line)

    def _ranges(self) -> tuple[float, float]:
        """Largest |x|, and y; the plot is symmetric about 0."""
        known = np.isfinite(self._x + self._y)
        if not known.any():
            return 1.0, 1.0
        reach, top = np.abs(self._x[known]).max(), self._y[known].max()
        return 1.06 * max(float(reach), 1e-3), 1.08 * max(float(top), 0.1)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = self._row_at(event)
        if row is not None:
            self.gene_selected.emit(self._symbols[row])

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        row = self._row_at(event)
        if row is None:
            QToolTip.hideText()
            return
        text = f"{self._symbols[row]}\n{self._x_label} {self._x[row]:+.2f}"
        QToolTip.showText(event.globalPosition().toPoint(), text, self)

    def leaveEvent(self, event: QEvent) -> None:
        QToolTip.hideText()

    def _row_at(self, event: QMouseEvent) -> int | None:
        return find_dot(self.dot_positions(), event.position()) if len(self._symbols) else None

    def paintEvent(self, event: QPaintEvent) -> None:
        if not len(self._symbols):
            return
        painter, ink = make_painter(self)
        plot, (reach, top) = self._plot_rect(), self._ranges()
        line = self.fontMetrics().height()
        faint = QColor(ink)
        faint.setAlpha(90)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(plot)
        painter.setPen(QPen(faint, 1, Qt.PenStyle.DashLine))
        painter.drawLine(
            QPointF(plot.center().x(), plot.top()), QPointF(plot.center().x(), plot.bottom())
        )
        painter.setPen(ink)
        for tick in round_ticks(-reach, reach):
            x, text = plot.center().x() + tick / reach * plot.width() / 2, f"{tick:g}"
            half = self.fontMetrics().horizontalAdvance(text) / 2 + 1
            x = max(x, plot.left() + half)  # its sign not below the 0 of the other axis
            painter.drawText(
                QRectF(x - half, plot.bottom() + 1, 2 * half, line), ALIGN_CENTER, text
            )
        for tick in round_ticks(0, top):
            y = plot.bottom() - tick / top * plot.height()
            box = QRectF(0, y - line / 2, plot.left() - 4, line)
            painter.drawText(box, ALIGN_RIGHT, f"{tick:g}")
        below = QRectF(0, plot.bottom() + line, self.width(), line + 2)
        painter.drawText(below, ALIGN_CENTER, self._x_label)
        painter.drawText(QRectF(4, 0, self.width() - 8, line + 2), ALIGN_LEFT, self._y_label)
        self._draw_dots(painter, ink)
        painter.end()

    def _draw_dots(self, painter: QPainter, ink: QColor) -> None:
        dots = self.dot_positions()
        known = np.asarray(np.isfinite(dots).all(axis=1))
        grey = QColor(ink)
        grey.setAlpha(FAINT_ALPHA)
        for color, drawn in (
            (grey, known & ~self._highlighted),
            (SIGNIFICANT_COLOR, known & self._highlighted),
        ):
            painter.setPen(QPen(color, 6, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            for x, y in dots[drawn].tolist():
                painter.drawPoint(QPointF(x, y))
        painter.setPen(ink)
        placed: list[QRectF] = []
        # The clearest genes first; a name that would lie on another one is left out.
        order = np.argsort(-np.where(known, self._y * np.abs(self._x), -1), kind="stable")
        rows = [int(r) for r in order[: 4 * MAX_NAMES] if known[r]]
        selected = None
        if self._selected in self._symbols:
            row = selected = self._symbols.index(self._selected)
            if known[row]:
                rows = [row, *(r for r in rows if r != row)]
                painter.setPen(QPen(ink, 1.5))
                painter.setBrush(SELECTED_COLOR)
                painter.drawEllipse(QPointF(*dots[row]), 5, 5)
                painter.setPen(ink)
        metrics, plot = self.fontMetrics(), self._plot_rect()
        for row in rows:
            if len(placed) == MAX_NAMES:
                break
            symbol = metrics.elidedText(
                self._symbols[row], Qt.TextElideMode.ElideRight, int(self.width() / 3)
            )
            x, y = dots[row]
            width = metrics.horizontalAdvance(symbol)
            before, after = x - 8 - width, x + 6
            left = before if x < plot.center().x() else after
            if not plot.left() <= left <= plot.right() - width:  # not over the numbers of an axis
                left = after if left == before else before
            box = QRectF(left, y - metrics.height() / 2, width + 2, metrics.height())
            covered = int(
                ((np.abs(dots - [left + width / 2, y])) < [width / 2, 4]).all(axis=1).sum()
            )
            is_free = not any(box.intersects(other) for other in placed)
            if row == selected or (is_free and covered <= MAX_COVERED_DOTS):
                painter.drawText(box, ALIGN_LEFT, symbol)
                placed.append(box)


@dataclass(frozen=True, eq=False)
class BoxGroup:
    """Values (N,) of one box, its name and colour."""

    name: str
    values: NDArray[np.floating]
    color: QColor


class BoxPlots(QWidget):
    """Box plots with the tiles beside them: quartiles, whiskers from 5 to 95 %."""

    def __init__(self) -> None:
        super().__init__()
        self._groups: tuple[BoxGroup, ...] = ()
        self._title = ""
        self.setMinimumHeight(150)
        self.setToolTip("Median and quartiles; whiskers hold 90 % of the tiles.")

    def sizeHint(self) -> QSize:
        return QSize(300, 170)

    def set_groups(self, title: str, groups: tuple[BoxGroup, ...]) -> None:
        """Show groups under each other; those without values are left out."""
        self._title, self._groups = title, tuple(g for g in groups if len(g.values))
        line = self.fontMetrics().height()
        self.setMinimumHeight(round(2.6 * line + len(self._groups) * 2.3 * line))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._groups:
            return
        painter, ink = make_painter(self)
        metrics, line = self.fontMetrics(), self.fontMetrics().height()
        names = [metrics.horizontalAdvance(g.name) for g in self._groups]
        left = min(max(names) + 12, self.width() * 0.4)
        plot = QRectF(left, line + 4, self.width() - left - 10, self.height() - 2.3 * line - 6)
        values = np.concatenate([g.values for g in self._groups])
        low, high = float(values.min()), float(values.max())
        margin = max(high - low, 0.1) * 0.04
        low, high = low - margin, high + margin

        def x(value: float) -> float:
            return float(plot.left() + (value - low) / (high - low) * plot.width())

        painter.setPen(ink)
        painter.drawText(QRectF(4, 0, self.width() - 8, line + 2), ALIGN_LEFT, self._title)
        faint = QColor(ink)
        faint.setAlpha(90)
        for tick in round_ticks(low, high):
            painter.setPen(QPen(faint, 1, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(x(tick), plot.top()), QPointF(x(tick), plot.bottom()))
            painter.setPen(ink)
            box = QRectF(x(tick) - 30, plot.bottom() + 1, 60, line)
            painter.drawText(box, ALIGN_CENTER, f"{tick:g}")
        row_height = plot.height() / len(self._groups)
        for number, group in enumerate(self._groups):
            middle = plot.top() + (number + 0.5) * row_height
            name = metrics.elidedText(group.name, Qt.TextElideMode.ElideMiddle, int(left - 8))
            painter.setPen(ink)
            painter.drawText(QRectF(4, middle - line / 2, left - 8, line), ALIGN_LEFT, name)
            self._draw_box(painter, ink, group, x, middle, row_height)
        painter.end()

    def _draw_box(
        self,
        painter: QPainter,
        ink: QColor,
        group: BoxGroup,
        x: Callable[[float], float],
        middle: float,
        row_height: float,
    ) -> None:
        values, half = group.values, 0.3 * row_height
        random = np.random.default_rng(0)
        shown = values
        if len(values) > MAX_DOTS:
            shown = values[random.choice(len(values), MAX_DOTS, replace=False)]
        color = QColor(group.color)
        color.setAlpha(130)
        painter.setPen(QPen(color, 3, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
        for value, shift in zip(shown.tolist(), random.uniform(-1, 1, len(shown)), strict=True):
            painter.drawPoint(QPointF(x(value), middle + shift * half))
        low, first, median, third, high = np.percentile(values, WHISKER_PERCENTILES).tolist()
        painter.setPen(QPen(ink, 1.2))
        painter.drawLine(QPointF(x(low), middle), QPointF(x(first), middle))
        painter.drawLine(QPointF(x(third), middle), QPointF(x(high), middle))
        color.setAlpha(90)
        painter.setBrush(color)
        painter.drawRect(QRectF(x(first), middle - half, x(third) - x(first), 2 * half))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(ink, 2.5))
        painter.drawLine(QPointF(x(median), middle - half), QPointF(x(median), middle + half))
