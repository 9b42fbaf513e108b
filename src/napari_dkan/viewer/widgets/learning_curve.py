"""Learning curve: loss and validation PCC of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from ...training.finetuning.tuning_protocol import EpochFinished
from .theme_colors import LINK_COLOR, ThemeColor, color_for_theme

LOSS_COLOR, PCC_COLOR = ThemeColor("#e8a35a", "#8f5200"), LINK_COLOR
MAX_POINTS = 600  # points per line; more cannot be distinguished


@dataclass(frozen=True)
class _CurveSeries:
    """One line of the plot with K points."""

    title: str
    color: QColor
    epochs: NDArray[np.float64]  # (K,)
    values: NDArray[np.float64]  # (K,)

    @property
    def value_range(self) -> tuple[float, float]:
        """Range of the axis, never empty."""
        finite = self.values[np.isfinite(self.values)]
        if not len(finite):
            return 0.0, 1.0
        low, high = float(finite.min()), float(finite.max())
        margin = 0.08 * (high - low) or 0.05
        return low - margin, high + margin


class LearningCurve(QWidget):
    """Two lines over the epochs with a scale each: loss on the left, PCC on the right."""

    HEIGHT, SIDE, TOP, FOOT = 150, 40, 20, 18

    def __init__(self) -> None:
        super().__init__()
        self.epochs: tuple[EpochFinished, ...] = ()
        self._initial_pcc: float | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Validation PCC, beside depth, chooses the epoch: it is measured on parts of the "
            "training spots, by networks trained without them. Held-out spots are not used for "
            "it. The line starts with the checkpoint as it was; the dashed line marks the epoch "
            "that is kept."
        )

    def set_epochs(self, epochs: Sequence[EpochFinished], initial_pcc: float | None) -> None:
        """Show epochs; ``initial_pcc`` is the validation PCC of the original checkpoint."""
        self.epochs, self._initial_pcc = tuple(epochs), initial_pcc
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(260, self.HEIGHT)

    def make_series(self) -> tuple[_CurveSeries, _CurveSeries]:
        """Return loss and PCC, the latter from epoch 0 if that is known."""
        epochs = [float(e.number) for e in self.epochs]
        loss = [_nan_if_none(e.loss) for e in self.epochs]
        pcc_epochs, pcc = list(epochs), [_nan_if_none(e.pcc) for e in self.epochs]
        if self._initial_pcc is not None:
            pcc_epochs.insert(0, 0.0)
            pcc.insert(0, self._initial_pcc)
        loss_color, pcc_color = (
            QColor(color_for_theme(self, color)) for color in (LOSS_COLOR, PCC_COLOR)
        )
        return (
            _CurveSeries("loss", loss_color, np.array(epochs), np.array(loss)),
            _CurveSeries("validation PCC", pcc_color, np.array(pcc_epochs), np.array(pcc)),
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(font.pointSizeF() * 0.9)
        painter.setFont(font)
        text = self.palette().windowText().color()
        box = QRectF(self.rect()).adjusted(self.SIDE, self.TOP, -self.SIDE, -self.FOOT)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(128, 128, 128, 35))
        painter.drawRoundedRect(box, 3, 3)
        last = self.epochs[-1].number if self.epochs else 1
        across = _make_linear_scale(0, max(last, 1), box.left() + 5, box.right() - 5)
        self._mark_best(painter, box, across)
        for line, right in zip(self.make_series(), (False, True), strict=True):
            low, high = line.value_range
            up = _make_linear_scale(low, high, box.bottom(), box.top())
            _draw_series(painter, line, across, up)
            self._draw_labels(painter, box, line, up, right)
        painter.setPen(text)
        foot = QRectF(box.left(), box.bottom() + 2, box.width(), self.FOOT)
        painter.drawText(foot, Qt.AlignmentFlag.AlignLeft, "0")
        painter.drawText(foot, Qt.AlignmentFlag.AlignHCenter, "epoch")
        painter.drawText(foot, Qt.AlignmentFlag.AlignRight, str(last) if self.epochs else "")
        painter.end()

    def _mark_best(self, painter: QPainter, box: QRectF, across: Callable[[float], float]) -> None:
        """Draw a dashed line at the best epoch so far."""
        if not self.epochs:
            return
        x = across(self.epochs[-1].best)
        color = self.palette().windowText().color()
        color.setAlpha(140)
        painter.setPen(QPen(color, 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(x, box.top()), QPointF(x, box.bottom()))

    def _draw_labels(
        self,
        painter: QPainter,
        box: QRectF,
        line: _CurveSeries,
        up: Callable[[float], float],
        right: bool,
    ) -> None:
        """Draw the title with the latest value, and the lowest and highest value at the side."""
        painter.setPen(line.color)
        side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        finite = line.values[np.isfinite(line.values)]
        latest = f" {finite[-1]:.3f}" if len(finite) else ""
        painter.drawText(QRectF(0, 0, self.width() - 1, self.TOP), side, line.title + latest)
        if not len(finite):
            return
        x = box.right() + 4 if right else 0
        alignment = Qt.AlignmentFlag.AlignLeft if right else Qt.AlignmentFlag.AlignRight
        for value in {float(finite.min()), float(finite.max())}:
            label = QRectF(x, up(value) - 8, self.SIDE - 5, 16)
            painter.drawText(label, alignment | Qt.AlignmentFlag.AlignVCenter, f"{value:.2f}")


def _draw_series(
    painter: QPainter,
    line: _CurveSeries,
    across: Callable[[float], float],
    up: Callable[[float], float],
) -> None:
    known = np.flatnonzero(np.isfinite(line.values))
    known = known[:: max(1, len(known) // MAX_POINTS)]
    points = [QPointF(across(line.epochs[i]), up(line.values[i])) for i in known]
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(line.color, 1.8))
    painter.drawPolyline(QPolygonF(points))
    if points:
        painter.setBrush(line.color)
        painter.drawEllipse(points[-1], 2.5, 2.5)


def _make_linear_scale(
    low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
    """Linear function from a value to a pixel."""
    return lambda value: start + (float(value) - low) / (high - low) * (end - start)


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else float(value)
