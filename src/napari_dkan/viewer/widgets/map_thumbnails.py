"""Maps of several genes side by side over the same picture; a click chooses one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QLineF, QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QWheelEvent,
)
from qtpy.QtWidgets import QToolTip, QWidget

from .correlation_plots import ALIGN_CENTER, ALIGN_LEFT, ALIGN_RIGHT, SELECTED_COLOR, make_painter

GAP = 4  # px between maps
RAMP_WIDTH = 30
MIN_NAME_WIDTH = 40  # of a gene beside its limits


@dataclass(frozen=True, eq=False)
class MapThumbnail:
    """One gene.

    Attributes
    ----------
    symbol : str
    values : (H, W) array
        NaN where there is no tile.
    image : QImage
        (H, W), the colours of the values.
    limits : tuple of float
    ramp : (C, 3) array
        Colours from the lower to the upper limit, from 0 to 1.
    """

    symbol: str
    values: NDArray[np.floating]
    image: QImage
    limits: tuple[float, float]
    ramp: NDArray[np.floating]


class MapThumbnails(QWidget):
    """Up to nine maps with one common view; all rectangles are in level-0 px of the slide."""

    gene_selected = Signal(str)
    zoomed = Signal(float)  # by the wheel

    def __init__(self) -> None:
        super().__init__()
        self.maps: tuple[MapThumbnail, ...] = ()
        self.selected: str | None = None
        self.view = QRectF(0, 0, 1, 1)
        self._area = QRectF()  # of the rasters
        self._hatched: NDArray[np.float64] = np.empty((0, 4))
        self._background: QImage | None = None
        self._slide_area = QRectF()
        self._opacity = 0.65
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(240, 180)

    def sizeHint(self) -> QSize:
        return QSize(780, 560)

    def set_background(self, image: QImage | None, area: QRectF) -> None:
        """Set the picture of the slide and its rectangle."""
        self._background, self._slide_area = image, area
        self.update()

    def set_maps(
        self,
        maps: tuple[MapThumbnail, ...],
        area: QRectF,
        hatched: NDArray[np.float64],
        opacity: float,
    ) -> None:
        """Show maps.

        Parameters
        ----------
        maps : tuple of MapThumbnail
        area : QRectF
            Rectangle of their rasters.
        hatched : (N, 4) array
            A line (x0, y0, x1, y1) over each unreliable tile.
        opacity : float
        """
        self.maps, self._area, self._hatched, self._opacity = maps, area, hatched, opacity
        self.update()

    def select(self, symbol: str | None) -> None:
        """Frame a gene."""
        self.selected = symbol
        self.update()

    def set_view(self, view: QRectF) -> None:
        """Set the part of the slide that every map shows."""
        self.view = view
        self.update()

    # ---- geometry --------------------------------------------------------------------

    def cells(self) -> list[QRectF]:
        """Return the rectangle of each map, in the rows that show the view largest."""
        count = max(len(self.maps), 1)

        def zoom(rows: int) -> float:
            columns = -(-count // rows)
            width = self.width() / columns - GAP
            height = self.height() / rows - GAP - self._line()
            return min(width / self.view.width(), height / self.view.height())

        rows = max(range(1, count + 1), key=zoom)
        columns = -(-count // rows)
        width, height = self.width() / columns, self.height() / rows
        return [
            QRectF(
                (i % columns) * width + GAP / 2,
                (i // columns) * height + GAP / 2,
                width - GAP,
                height - GAP,
            )
            for i in range(len(self.maps))
        ]

    def _line(self) -> int:
        return self.fontMetrics().height() + 4

    def _picture(self, cell: QRectF) -> QRectF:
        return cell.adjusted(0, self._line(), 0, 0)

    def _zoom(self, picture: QRectF) -> float:
        """Screen px per level-0 px."""
        return min(picture.width() / self.view.width(), picture.height() / self.view.height())

    def _index_at(self, position: QPointF) -> int | None:
        hits = [i for i, cell in enumerate(self.cells()) if cell.contains(position)]
        return hits[0] if hits else None

    def value_at(self, position: QPointF) -> tuple[str, float] | None:
        """Return the gene and the value of the tile at a position."""
        index = self._index_at(position)
        if index is None:
            return None
        picture, shown = self._picture(self.cells()[index]), self.maps[index]
        zoom, offset, centre = self._zoom(picture), position - picture.center(), self.view.center()
        x, y = centre.x() + offset.x() / zoom, centre.y() + offset.y() / zoom
        rows, columns = shown.values.shape
        column = int(np.floor((x - self._area.left()) / self._area.width() * columns))
        row = int(np.floor((y - self._area.top()) / self._area.height() * rows))
        if not (0 <= row < rows and 0 <= column < columns):
            return None
        return shown.symbol, float(shown.values[row, column])

    # ---- mouse and keys --------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = self._index_at(event.position())
        if index is not None:
            self.gene_selected.emit(self.maps[index].symbol)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        found = self.value_at(event.position())
        if found is None or not np.isfinite(found[1]):
            QToolTip.hideText()
            return
        text = f"{found[0]} predicted {found[1]:.2f}"
        QToolTip.showText(event.globalPosition().toPoint(), text, self)

    def leaveEvent(self, event: QEvent) -> None:
        QToolTip.hideText()

    def wheelEvent(self, event: QWheelEvent) -> None:
        self.zoomed.emit(1.2 ** (event.angleDelta().y() / 120))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Choose the map before or after the selected one by the arrow keys."""
        key = Qt.Key(event.key())
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Up: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Down: 1}
        symbols = [shown.symbol for shown in self.maps]
        if key not in step or not symbols:
            super().keyPressEvent(event)
            return
        index = symbols.index(self.selected) + step[key] if self.selected in symbols else 0
        self.gene_selected.emit(symbols[index % len(symbols)])

    # ---- painting --------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, ink = make_painter(self)
        if not self.maps:
            painter.setPen(ink)
            text = "No map of these genes yet: predict a region."
            painter.drawText(QRectF(self.rect()), ALIGN_CENTER, text)
        for shown, cell in zip(self.maps, self.cells(), strict=True):
            self._draw_title(painter, ink, shown, cell)
            self._draw_picture(painter, shown, self._picture(cell))
            is_selected = shown.symbol == self.selected
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(SELECTED_COLOR if is_selected else ink, 3 if is_selected else 0.5))
            painter.drawRect(self._picture(cell).adjusted(1, 1, -1, -1))
        painter.end()

    def _number_width(self) -> int:
        """Width of the widest limit, with its sign: a clipped one would be another number."""
        texts = [f"{limit:.2f}" for shown in self.maps for limit in shown.limits]
        return 5 + max((self.fontMetrics().horizontalAdvance(text) for text in texts), default=0)

    def _draw_title(
        self, painter: QPainter, ink: QColor, shown: MapThumbnail, cell: QRectF
    ) -> None:
        """Draw the gene, and its colours between its limits where there is room."""
        line, right = self._line(), cell.right()
        title = QRectF(cell.left(), cell.top(), cell.width(), line)
        painter.setPen(ink)
        number_width = self._number_width()
        scale_width = 2 * number_width + RAMP_WIDTH
        if cell.width() > scale_width + MIN_NAME_WIDTH:
            title.setWidth(cell.width() - scale_width - 4)
            low, high = (f"{limit:.2f}" for limit in shown.limits)
            number = QRectF(right - scale_width, cell.top(), number_width - 3, line)
            painter.drawText(number, ALIGN_RIGHT, low)
            painter.drawText(number.translated(scale_width - number_width + 3, 0), ALIGN_LEFT, high)
            ramp = QRectF(number.right() + 3, cell.top() + 4, RAMP_WIDTH, line - 8)
            gradient = QLinearGradient(ramp.left(), 0, ramp.right(), 0)
            for place, color in zip(np.linspace(0, 1, len(shown.ramp)), shown.ramp, strict=True):
                gradient.setColorAt(float(place), QColor.fromRgbF(*(float(c) for c in color)))
            painter.fillRect(ramp, gradient)
        font = painter.font()
        font.setBold(shown.symbol == self.selected)
        painter.setFont(font)
        elided = painter.fontMetrics().elidedText(
            shown.symbol, Qt.TextElideMode.ElideRight, round(title.width())
        )
        painter.drawText(title, ALIGN_LEFT, elided)
        font.setBold(False)
        painter.setFont(font)

    def _draw_picture(self, painter: QPainter, shown: MapThumbnail, picture: QRectF) -> None:
        """Draw slide and map, in level-0 px."""
        painter.save()
        painter.setClipRect(picture)
        painter.translate(picture.center())
        painter.scale(self._zoom(picture), self._zoom(picture))
        painter.translate(-self.view.center())
        if self._background is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, True)
            painter.drawImage(self._slide_area, self._background)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, False)
        painter.setOpacity(self._opacity if self._background is not None else 1.0)
        painter.drawImage(self._area, shown.image)
        pen = QPen(QColor(0, 0, 0, 200), 1)
        pen.setCosmetic(True)  # in screen px
        painter.setOpacity(1.0)
        painter.setPen(pen)
        painter.drawLines([QLineF(*line) for line in self._hatched.tolist()])
        painter.restore()
