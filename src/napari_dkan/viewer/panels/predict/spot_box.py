"""The clicked spot: its genes as horizontal bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from ....inference.prediction import Prediction
from ...layers.reliability_overlay import format_reliability
from ...session.viewer_session import ViewerSession
from ...widgets.qt_utils import make_shrinkable
from ...widgets.signal_connections import SignalConnections
from ..quality.quality_controller import get_quality_controller

if TYPE_CHECKING:
    from ....model import Checkpoint


TOP_GENES = 12
SORT_BY_VALUE, SORT_BY_EXCESS = "highest", "most above average"
MEASURED_COLOR = QColor("#26a69a")
ZERO_SHOT_MARK = "*"  # behind a gene that is predicted from its text alone


class GeneBars(QWidget):
    """Rows of (label, value, marked) as horizontal bars; a click on a row picks its label.

    Labels in ``starred`` get a star and a hollow bar: their values are on another scale. Those
    in ``measured`` get a second, thin bar and number.
    """

    gene_picked = Signal(str)
    ROW_HEIGHT = 18

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float, bool]] = []
        self.starred: frozenset[str] = frozenset()
        self.measured: dict[str, float] = {}
        self.selected_row = 0  # the row that the arrow keys chose
        self.setToolTip("Click a gene to show its map, or use the arrow keys and Enter.")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_rows(
        self,
        rows: list[tuple[str, float, bool]],
        starred: frozenset[str] = frozenset(),
        measured: dict[str, float] | None = None,
    ) -> None:
        self.rows, self.starred, self.measured = rows, starred, measured or {}
        self.setMinimumHeight(len(rows) * self.ROW_HEIGHT)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(260, max(1, len(self.rows)) * self.ROW_HEIGHT)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = int(event.position().y()) // self.ROW_HEIGHT
        if 0 <= row < len(self.rows):
            self.gene_picked.emit(self.rows[row][0])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Up and down choose a row, Enter and Space pick its gene."""
        key, last = Qt.Key(event.key()), len(self.rows) - 1
        step = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}.get(key)
        if step is not None and self.rows:
            self.selected_row = max(0, min(last, self.selected_row + step))
            self.update()
        elif (
            key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)
            and self.selected_row <= last
        ):
            self.gene_picked.emit(self.rows[self.selected_row][0])
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
            y = i * self.ROW_HEIGHT
            if i == self.selected_row and self.hasFocus():
                painter.fillRect(
                    QRectF(0, y, self.width(), self.ROW_HEIGHT), QColor(128, 128, 128, 70)
                )
            font = painter.font()
            font.setBold(marked)
            painter.setFont(font)
            painter.setPen(text)
            middle = Qt.AlignmentFlag.AlignVCenter
            star = ZERO_SHOT_MARK if label in self.starred else ""
            painter.drawText(QRectF(0, y, name, self.ROW_HEIGHT), middle, label + star)
            right = QRectF(self.width() - number, y, number - 4, self.ROW_HEIGHT)
            there = self.measured.get(label)
            both = f"{value:.2f}" if there is None else f"{value:.2f} | {there:.2f}"
            painter.drawText(right, middle | Qt.AlignmentFlag.AlignRight, both)
            track = QRectF(name, y + 4, room, self.ROW_HEIGHT - 8)
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
                painter.setBrush(MEASURED_COLOR)
                width = room * float(np.clip(there / top, 0, 1))
                painter.drawRect(QRectF(name, y + self.ROW_HEIGHT - 4, width, 3))
        painter.end()


class SpotBox(QWidget):
    """Where the clicked spot is, its chosen genes and its top genes."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session, self._quality = session, get_quality_controller(session)
        self.position_label = QLabel()
        self.position_label.setWordWrap(True)
        self.sort_combo = QComboBox()
        make_shrinkable(self.sort_combo)
        self.sort_combo.addItems([SORT_BY_VALUE, SORT_BY_EXCESS])
        self.sort_combo.setToolTip(
            "'most above average' compares with the training sections' mean and spread"
        )
        self.gene_bars = GeneBars()
        self.units_label = QLabel()
        self.units_label.setWordWrap(True)
        self._sort_row = QWidget()
        line = QHBoxLayout(self._sort_row)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(QLabel("Top genes:"))
        line.addWidget(self.sort_combo, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.position_label)
        layout.addWidget(self._sort_row)
        layout.addWidget(self.gene_bars)
        layout.addWidget(self.units_label)
        self.gene_bars.gene_picked.connect(session.set_gene)
        self.sort_combo.activated.connect(self.refresh)
        connections.connect(self.refresh, session.gene_changed, session.pinned_changed)
        connections.connect(self._on_spot_changed, session.spot_changed)
        self.refresh()

    def _on_spot_changed(self) -> None:
        """The bars are what was waited for: they are painted before the canvas is."""
        self.refresh()
        self.gene_bars.repaint()

    def refresh(self) -> None:
        spot = self._session.spot
        for widget in (self.gene_bars, self.units_label, self._sort_row):
            widget.setVisible(spot is not None)
        if spot is None:
            self.position_label.setText("Click on tissue to see its predicted genes here.")
            return
        x, y = spot.target.spots.xy[-1]
        checkpoint = self._spot_checkpoint(spot)
        judged = self._session.spot_reliability
        reference = judged or (None if checkpoint is None else checkpoint.reference)
        doubt = format_reliability(spot, reference, -1)
        place = f"Spot at ({x:,.0f}, {y:,.0f}) px"
        self.position_label.setText(f"{place}, {doubt}" if doubt else place)
        text = f"predicted, {spot.label_scale.name}"
        if spot.zero_shot_symbols:
            text += (
                f"\n{ZERO_SHOT_MARK} zero-shot: {spot.get_value_units(spot.zero_shot_symbols[0])}"
            )
        self.units_label.setText(text)
        measured = self._quality.measured_labels(spot)
        if measured:
            self.units_label.setText(f"{text}\nthin bar and second number: measured")
        self.gene_bars.set_rows(self._bar_rows(spot), frozenset(spot.zero_shot_symbols), measured)

    def _spot_checkpoint(self, spot: Prediction) -> Checkpoint | None:
        """The one it was predicted by; None for a spot that a file tells of, unless it is here."""
        checkpoint, by = self._session.checkpoint, spot.provenance.get("checkpoint_sha256")
        return checkpoint if checkpoint is not None and by == checkpoint.sha256 else None

    def _bar_rows(self, spot: Prediction) -> list[tuple[str, float, bool]]:
        """The shown and the pinned genes first, then the spot's top genes."""
        session = self._session
        chosen = [g for g in (session.gene, *session.pinned) if g is not None and g in spot.panel]
        values = spot.values[-1]
        new = np.isin(spot.panel.symbols, spot.zero_shot_symbols)
        score = np.where(new, -np.inf, values)  # in units of their own
        checkpoint = self._spot_checkpoint(spot)
        if self.sort_combo.currentText() == SORT_BY_EXCESS and checkpoint is not None:
            network = checkpoint.network
            own = [checkpoint.panel.row(s) for s in np.array(spot.panel.symbols)[~new]]
            mean, spread = network.label_mean.cpu().numpy(), network.label_std.cpu().numpy()
            mean, spread = mean[own], spread[own]  # a file may have some genes only
            score = values.copy()  # a zero-shot gene's are relative to its mean already
            score[~new] = (values[~new] - mean) / np.maximum(spread, 1e-6)
        symbols = spot.panel.symbols
        order = np.argsort(-score, kind="stable")[:TOP_GENES]
        top = [symbols[i] for i in order if np.isfinite(score[i])]
        genes = dict.fromkeys([*chosen, *top])
        return [(g, float(values[spot.panel.row(g)]), g == session.gene) for g in genes]
