"""The clicked spot: its genes as horizontal bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
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
ZERO_SHOT_MARK = "*"  # after a gene that is predicted from its text only


class GeneBars(QWidget):
    """Genes as horizontal bars; a click on a row, or Enter, picks its gene.

    Attributes
    ----------
    rows : list of (str, float, bool)
        Gene, value, and whether it is the current gene.
    starred : frozenset of str
        Genes whose values are on another scale: a star and a hollow bar.
    measured : dict
        Measured values by gene: a second, thin bar and number.
    selected_row : int
        Chosen with the arrow keys.
    """

    gene_picked = Signal(str)
    ROW_HEIGHT = 18

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float, bool]] = []
        self.starred: frozenset[str] = frozenset()
        self.measured: dict[str, float] = {}
        self.selected_row = 0
        self.setToolTip("Click a gene to show its map, or use the arrow keys and Enter.")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_rows(
        self,
        rows: list[tuple[str, float, bool]],
        starred: frozenset[str] = frozenset(),
        measured: dict[str, float] | None = None,
    ) -> None:
        """Replace all rows."""
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
        """Up and Down select a row, Enter and Space pick its gene."""
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
        name_width, number_width = 82, 84 if self.measured else 44
        bar_width = max(10, self.width() - name_width - number_width - 8)
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
            painter.drawText(QRectF(0, y, name_width, self.ROW_HEIGHT), middle, label + star)
            right = QRectF(self.width() - number_width, y, number_width - 4, self.ROW_HEIGHT)
            measured = self.measured.get(label)
            number = f"{value:.2f}" if measured is None else f"{value:.2f} | {measured:.2f}"
            painter.drawText(right, middle | Qt.AlignmentFlag.AlignRight, number)
            track = QRectF(name_width, y + 4, bar_width, self.ROW_HEIGHT - 8)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(128, 128, 128, 50))
            painter.drawRoundedRect(track, 3, 3)
            track.setWidth(bar_width * float(np.clip(value / top, 0, 1)))
            color = QColor("#e8735a") if marked else QColor("#8c6bb1")
            if star:
                painter.setPen(color)
            painter.setBrush(Qt.BrushStyle.NoBrush if star else color)
            painter.drawRoundedRect(track, 3, 3)
            if measured is not None:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(MEASURED_COLOR)
                width = bar_width * float(np.clip(measured / top, 0, 1))
                painter.drawRect(QRectF(name_width, y + self.ROW_HEIGHT - 4, width, 3))
        painter.end()


class SpotBox(QWidget):
    """The clicked spot: position, reliability, chosen genes and top genes."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session, self._quality = session, get_quality_controller(session).model
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
        """Paint the bars before the canvas, since the user waits for them."""
        self.refresh()
        self.gene_bars.repaint()

    def refresh(self) -> None:
        """Follow spot, gene and pinned genes."""
        spot = self._session.spot
        for widget in (self.gene_bars, self.units_label, self._sort_row):
            widget.setVisible(spot is not None)
        if spot is None:
            self.position_label.setText("Click on tissue to see its predicted genes here.")
            return
        x, y = spot.target.spots.xy[-1]
        checkpoint = self._spot_checkpoint(spot)
        saved = self._session.spot_reliability
        reference = saved or (None if checkpoint is None else checkpoint.reference)
        reliability = format_reliability(spot, reference, -1)
        position = f"Spot at ({x:,.0f}, {y:,.0f}) px"
        self.position_label.setText(f"{position}, {reliability}" if reliability else position)
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
        """The checkpoint of the prediction, if it is the current one."""
        checkpoint, sha256 = self._session.checkpoint, spot.provenance.get("checkpoint_sha256")
        return checkpoint if checkpoint is not None and sha256 == checkpoint.sha256 else None

    def _bar_rows(self, spot: Prediction) -> list[tuple[str, float, bool]]:
        """The shown and the pinned genes first, then the spot's top genes."""
        session = self._session
        chosen = [g for g in (session.gene, *session.pinned) if g is not None and spot.has_gene(g)]
        values = spot.values[-1]
        is_zero_shot = np.isin(spot.panel.symbols, spot.zero_shot_symbols)
        score = np.where(is_zero_shot, -np.inf, values)  # they have other units
        checkpoint = self._spot_checkpoint(spot)
        if self.sort_combo.currentText() == SORT_BY_EXCESS and checkpoint is not None:
            network = checkpoint.network
            rows = [checkpoint.panel.row(s) for s in np.array(spot.panel.symbols)[~is_zero_shot]]
            mean = network.label_mean.cpu().numpy()[rows]  # a file may have some genes only
            std = network.label_std.cpu().numpy()[rows]
            score = values.copy()  # zero-shot values are relative to the mean already
            score[~is_zero_shot] = (values[~is_zero_shot] - mean) / np.maximum(std, 1e-6)
        symbols = spot.panel.symbols
        order = np.argsort(-score, kind="stable")[:TOP_GENES]
        top = [symbols[i] for i in order if np.isfinite(score[i])]
        genes = dict.fromkeys([*chosen, *top])
        return [(g, float(spot.get_gene_values(g)[-1]), g == session.gene) for g in genes]
