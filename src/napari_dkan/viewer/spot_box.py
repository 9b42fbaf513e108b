"""The clicked spot: its genes as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from ..inference.prediction import Prediction
from .combo import narrow
from .links import Links
from .quality.state import quality_of
from .session import Session
from .trust import verdict

if TYPE_CHECKING:
    from ..model import Checkpoint

TOP = 12
BY_VALUE, BY_EXCESS = "highest", "most above average"
MEASURED = QColor("#26a69a")
ZERO_SHOT = "*"  # behind a gene that is predicted from its text alone


class Bars(QWidget):
    """Rows of (label, value, marked) as horizontal bars; a click on a row picks its label.

    Labels in ``starred`` get a star and a hollow bar: their values are on another scale. Those
    in ``measured`` get a second, thin bar and number.
    """

    picked = Signal(str)
    ROW = 18

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float, bool]] = []
        self.starred: frozenset[str] = frozenset()
        self.measured: dict[str, float] = {}
        self.at = 0  # the row that the arrow keys chose
        self.setToolTip("Click a gene to show its map, or use the arrow keys and Enter.")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_rows(
        self,
        rows: list[tuple[str, float, bool]],
        starred: frozenset[str] = frozenset(),
        measured: dict[str, float] | None = None,
    ) -> None:
        self.rows, self.starred, self.measured = rows, starred, measured or {}
        self.setMinimumHeight(len(rows) * self.ROW)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(260, max(1, len(self.rows)) * self.ROW)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = int(event.position().y()) // self.ROW
        if 0 <= row < len(self.rows):
            self.picked.emit(self.rows[row][0])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Up and down choose a row, Enter and Space pick its gene."""
        key, last = Qt.Key(event.key()), len(self.rows) - 1
        step = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}.get(key)
        if step is not None and self.rows:
            self.at = max(0, min(last, self.at + step))
            self.update()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and self.at <= last:
            self.picked.emit(self.rows[self.at][0])
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        name, number = 82, 84 if self.measured else 44
        room = max(10, self.width() - name - number - 8)
        shown = [v for _, v, _ in self.rows] + [self.measured.get(g, 0.0) for g, _, _ in self.rows]
        top = max([v for v in shown if np.isfinite(v)], default=1.0) or 1.0
        text = self.palette().windowText().color()
        for i, (label, value, marked) in enumerate(self.rows):
            y = i * self.ROW
            if i == self.at and self.hasFocus():
                painter.fillRect(QRectF(0, y, self.width(), self.ROW), QColor(128, 128, 128, 70))
            font = painter.font()
            font.setBold(marked)
            painter.setFont(font)
            painter.setPen(text)
            middle = Qt.AlignmentFlag.AlignVCenter
            star = ZERO_SHOT if label in self.starred else ""
            painter.drawText(QRectF(0, y, name, self.ROW), middle, label + star)
            right = QRectF(self.width() - number, y, number - 4, self.ROW)
            there = self.measured.get(label)
            both = f"{value:.2f}" if there is None else f"{value:.2f} | {there:.2f}"
            painter.drawText(right, middle | Qt.AlignmentFlag.AlignRight, both)
            track = QRectF(name, y + 4, room, self.ROW - 8)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(128, 128, 128, 50))
            painter.drawRoundedRect(track, 3, 3)
            track.setWidth(room * float(np.clip(value / top, 0, 1)))
            colour = QColor("#e8735a") if marked else QColor("#8c6bb1")
            if star:
                painter.setPen(colour)
            painter.setBrush(Qt.BrushStyle.NoBrush if star else colour)
            painter.drawRoundedRect(track, 3, 3)
            if there is not None:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(MEASURED)
                width = room * float(np.clip(there / top, 0, 1))
                painter.drawRect(QRectF(name, y + self.ROW - 4, width, 3))
        painter.end()


class SpotBox(QWidget):
    """Where the clicked spot is, its chosen genes and its top genes."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session, self._quality = session, quality_of(session)
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.order = QComboBox()
        narrow(self.order)
        self.order.addItems([BY_VALUE, BY_EXCESS])
        self.order.setToolTip(
            "'most above average' compares with the training sections' mean and spread"
        )
        self.bars = Bars()
        self.scale = QLabel()
        self.scale.setWordWrap(True)
        self._choice = QWidget()
        line = QHBoxLayout(self._choice)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(QLabel("Top genes:"))
        line.addWidget(self.order, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.where)
        layout.addWidget(self._choice)
        layout.addWidget(self.bars)
        layout.addWidget(self.scale)
        self.bars.picked.connect(session.set_gene)
        self.order.activated.connect(self.refresh)
        links.join(self.refresh, session.gene_changed, session.pinned_changed)
        links.join(self._clicked, session.spot_changed)
        self.refresh()

    def _clicked(self) -> None:
        """The bars are what was waited for: they are painted before the canvas is."""
        self.refresh()
        self.bars.repaint()

    def refresh(self) -> None:
        spot = self._session.spot
        for widget in (self.bars, self.scale, self._choice):
            widget.setVisible(spot is not None)
        if spot is None:
            self.where.setText("Click on tissue to see its predicted genes here.")
            return
        x, y = spot.target.spots.xy[-1]
        checkpoint = self._checkpoint(spot)
        judged = self._session.spot_judged
        reference = judged or (None if checkpoint is None else checkpoint.reference)
        doubt = verdict(spot, reference, -1)
        place = f"Spot at ({x:,.0f}, {y:,.0f}) px"
        self.where.setText(f"{place}, {doubt}" if doubt else place)
        text = f"predicted, {spot.label_scale.name}"
        if spot.zero_shot:
            text += f"\n{ZERO_SHOT} zero-shot: {spot.units(spot.zero_shot[0])}"
        self.scale.setText(text)
        measured = self._quality.measured_here(spot)
        if measured:
            self.scale.setText(f"{text}\nthin bar and second number: measured")
        self.bars.set_rows(self._rows(spot), frozenset(spot.zero_shot), measured)

    def _checkpoint(self, spot: Prediction) -> Checkpoint | None:
        """The one it was predicted by; None for a spot that a file tells of, unless it is here."""
        checkpoint, by = self._session.checkpoint, spot.provenance.get("checkpoint_sha256")
        return checkpoint if checkpoint is not None and by == checkpoint.sha256 else None

    def _rows(self, spot: Prediction) -> list[tuple[str, float, bool]]:
        """The shown and the pinned genes first, then the spot's top genes."""
        session = self._session
        chosen = [g for g in (session.gene, *session.pinned) if g is not None and g in spot.panel]
        values = spot.values[-1]
        new = np.isin(spot.panel.symbols, spot.zero_shot)
        score = np.where(new, -np.inf, values)  # in units of their own
        checkpoint = self._checkpoint(spot)
        if self.order.currentText() == BY_EXCESS and checkpoint is not None:
            network = checkpoint.network
            own = [checkpoint.panel.row(s) for s in np.array(spot.panel.symbols)[~new]]
            mean, spread = network.label_mean.cpu().numpy(), network.label_std.cpu().numpy()
            mean, spread = mean[own], spread[own]  # a file may have some genes only
            score = values.copy()  # a zero-shot gene's are relative to its mean already
            score[~new] = (values[~new] - mean) / np.maximum(spread, 1e-6)
        symbols = spot.panel.symbols
        order = np.argsort(-score, kind="stable")[:TOP]
        top = [symbols[i] for i in order if np.isfinite(score[i])]
        genes = dict.fromkeys([*chosen, *top])
        return [(g, float(values[spot.panel.row(g)]), g == session.gene) for g in genes]
