"""The clicked spot: its genes as horizontal bars."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QWidget

from ....inference.prediction import Prediction
from ...layers.gene_baseline import GeneBaseline, GeneBaselines
from ...layers.reliability_overlay import format_reliability
from ...session.viewer_session import ViewerSession
from ...widgets.qt_utils import fill_column, make_shrinkable, make_text_label
from ...widgets.signal_connections import SignalConnections
from ..quality.quality_controller import get_quality_controller

TOP_GENES = 12
SORT_BY_EXCESS, SORT_BY_VALUE = "most above average", "highest"
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
        Measured values by gene: a second number, and a thin bar where bars are values.
    excess : dict
        Standard deviations from the mean by gene: then the bars are these, on both sides of the
        mean, and the value stands beside them.
    whiskers : dict
        Spread by gene, in the units of the bars: a line on both sides of the end of the bar.
    selected_row : int
        Chosen with the arrow keys.
    """

    gene_picked = Signal(str)
    ROW_HEIGHT, NAME_WIDTH = 18, 82
    MAX_NAME_SHARE = 0.35  # of the width, for the score of a gene set
    MIN_WIDTH = 320  # of names, bars and two numbers

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float, bool]] = []
        self.starred: frozenset[str] = frozenset()
        self.measured: dict[str, float] = {}
        self.excess: dict[str, float] = {}
        self.whiskers: dict[str, float] = {}
        self.selected_row = 0
        self.setAccessibleName("Genes of this spot")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_rows(
        self,
        rows: list[tuple[str, float, bool]],
        starred: frozenset[str] = frozenset(),
        measured: dict[str, float] | None = None,
        excess: dict[str, float] | None = None,
        whiskers: dict[str, float] | None = None,
    ) -> None:
        """Replace all rows."""
        self.rows, self.starred, self.whiskers = rows, starred, whiskers or {}
        self.measured, self.excess = measured or {}, excess or {}
        self.setAccessibleDescription("; ".join(self._describe(gene, v) for gene, v, _ in rows))
        self.setMinimumHeight(len(rows) * self.ROW_HEIGHT)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(self.MIN_WIDTH, max(1, len(self.rows)) * self.ROW_HEIGHT)

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

    def name_width(self) -> int:
        """Return the width of the names, of which longer ones are elided."""
        metrics = self._bold_metrics()
        widest = max((metrics.horizontalAdvance(f"{gene} ") for gene, _, _ in self.rows), default=0)
        return max(self.NAME_WIDTH, min(widest + 4, int(self.MAX_NAME_SHARE * self.width())))

    def _bold_metrics(self) -> QFontMetrics:
        bold = self.font()
        bold.setBold(True)
        return QFontMetrics(bold)

    def _numbers(self, gene: str, value: float) -> str:
        """The value of a row, the measured one and the distance from the mean, where known."""
        texts = [f"{value:z.2f}"]
        if gene in self.measured:
            texts.append(f"| {self.measured[gene]:z.2f}")
        if self.excess:
            excess = self.excess.get(gene, np.nan)
            texts.insert(0, f"{excess:+z.1f} SD" if np.isfinite(excess) else "")
        return "  ".join(texts)

    def _describe(self, gene: str, value: float) -> str:
        return f"{gene} {self._numbers(gene, value)}"

    def _bar_scale(self) -> tuple[float, float]:
        """The values at the left and the right end of the bars."""
        if self.excess:
            known = [v for g, _, _ in self.rows if np.isfinite(v := self.excess.get(g, np.nan))]
            ends = [e for g, _, _ in self.rows for e in self._whisker_ends(g, self.excess.get(g))]
            return min([0.0, *known, *ends]), max([1.0, *known, *ends])
        shown = [v for _, v, _ in self.rows] + [self.measured.get(g, 0.0) for g, _, _ in self.rows]
        shown += [end for g, v, _ in self.rows for end in self._whisker_ends(g, v)]
        return 0.0, max([v for v in shown if np.isfinite(v)], default=1.0) or 1.0

    def _whisker_ends(self, gene: str, shown: float | None) -> tuple[float, ...]:
        """Both ends of the line at the bar of a gene; () without one."""
        whisker = self.whiskers.get(gene, np.nan)
        if shown is None or not np.isfinite(shown) or not np.isfinite(whisker):
            return ()
        return shown - whisker, shown + whisker

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        widest = max((self._numbers(g, v) for g, v, _ in self.rows), key=len, default="")
        name_width = self.name_width()
        number_width = self._bold_metrics().horizontalAdvance(f"{widest} ")
        bar_width = max(10, self.width() - name_width - number_width - 8)
        low, high = self._bar_scale()

        def place(value: float) -> float:
            """The x position of a value."""
            return name_width + bar_width * float(np.clip((value - low) / (high - low), 0, 1))

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
            name = painter.fontMetrics().elidedText(
                label, Qt.TextElideMode.ElideRight, name_width - 4
            )
            painter.drawText(QRectF(0, y, name_width, self.ROW_HEIGHT), middle, name + star)
            right = QRectF(self.width() - number_width, y, number_width - 4, self.ROW_HEIGHT)
            painter.drawText(
                right, middle | Qt.AlignmentFlag.AlignRight, self._numbers(label, value)
            )
            track = QRectF(name_width, y + 4, bar_width, self.ROW_HEIGHT - 8)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(128, 128, 128, 50))
            painter.drawRoundedRect(track, 3, 3)
            shown = self.excess.get(label, np.nan) if self.excess else value
            color = QColor("#e8735a") if marked else QColor("#8c6bb1")
            if star:
                painter.setPen(color)
            painter.setBrush(Qt.BrushStyle.NoBrush if star else color)
            if np.isfinite(shown):
                ends = sorted((place(0.0), place(shown)))
                track.setLeft(ends[0])
                track.setRight(ends[1])
                painter.drawRoundedRect(track, 3, 3)
            whisker = self._whisker_ends(label, shown)
            if whisker and whisker[1] > low:
                painter.setPen(text)
                middle_y = y + self.ROW_HEIGHT / 2
                left, right_end = map(place, whisker)
                painter.drawLine(QPointF(left, middle_y), QPointF(right_end, middle_y))
                for end in whisker:
                    if end >= low:  # a line that goes on beyond the bars has no end there
                        x = place(end)
                        painter.drawLine(QPointF(x, middle_y - 3), QPointF(x, middle_y + 3))
            measured = self.measured.get(label)
            if measured is not None and not self.excess:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(MEASURED_COLOR)
                width = place(measured) - name_width
                painter.drawRect(QRectF(name_width, y + self.ROW_HEIGHT - 4, width, 3))
        if low < 0:  # the mean, where bars go to both sides
            painter.setPen(text)
            mean = place(0.0)
            painter.drawLine(QPointF(mean, 0), QPointF(mean, len(self.rows) * self.ROW_HEIGHT))
        painter.end()


BARS_HELP = "Click a gene to show its map, or use the arrow keys and Enter."


class SpotBox(QWidget):
    """The clicked spot: position, reliability, chosen genes and top genes.

    Attributes
    ----------
    baselines : GeneBaselines
        What the spot is compared with.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session, self._quality = session, get_quality_controller(session).model
        self.baselines = GeneBaselines(session)
        self.position_label = make_text_label()
        self.sort_combo = QComboBox()
        make_shrinkable(self.sort_combo)
        self.sort_combo.addItems([SORT_BY_EXCESS, SORT_BY_VALUE])
        self.sort_combo.setAccessibleName("Order of the genes")
        self.sort_combo.setToolTip("Which genes come first, after the shown one and the pinned")
        self.gene_bars = GeneBars()
        self.units_label = make_text_label()
        fill_column(
            self, self.position_label, self.sort_combo, self.gene_bars, self.units_label
        ).setSpacing(4)
        self.gene_bars.gene_picked.connect(session.set_gene)
        self.sort_combo.activated.connect(self.refresh)
        connections.connect(
            self.refresh, session.gene_changed, session.pinned_changed, session.overlays_changed
        )
        connections.connect(self._on_spot_changed, session.spot_changed)
        self.refresh()

    def summarize(self) -> str:
        """Summarize the spot in a line, e.g. ``ERBB2 2.26``."""
        spot, gene = self._session.spot, self._session.gene
        if spot is None or gene is None or not spot.has_gene(gene):
            return "" if spot is None else self.position_label.text()
        return f"{gene} {spot.get_gene_values(gene)[-1]:z.2f}"

    def _on_spot_changed(self) -> None:
        """Paint the bars before the canvas, since the user waits for them."""
        self.refresh()
        self.gene_bars.repaint()

    def refresh(self) -> None:
        """Follow spot, gene, pinned genes and the maps that the spot is compared with."""
        spot = self._session.spot
        for widget in (self.gene_bars, self.units_label, self.sort_combo):
            widget.setVisible(spot is not None)
        if spot is None:
            self.position_label.setText("Click on tissue to see its predicted genes here.")
            return
        x, y = spot.target.spots.xy[-1]
        checkpoint = self._session.checkpoint
        is_of_checkpoint = (
            checkpoint is not None and spot.provenance.get("checkpoint_sha256") == checkpoint.sha256
        )
        saved = self._session.spot_reliability
        reference = saved or (
            checkpoint.reference if checkpoint is not None and is_of_checkpoint else None
        )
        reliability = format_reliability(spot, reference, -1)
        position = f"({x:,.0f}, {y:,.0f}) px"
        self.position_label.setText(f"{position}, {reliability}" if reliability else position)
        by_excess = self.sort_combo.currentText() == SORT_BY_EXCESS
        baseline = self.baselines.find(spot) if by_excess else None
        measured = self._quality.measured_labels(spot)
        excess = {} if baseline is None else _compute_excess(spot, baseline)
        rows = self._bar_rows(spot, excess)
        self.gene_bars.set_rows(
            rows,
            frozenset(spot.zero_shot_symbols),
            measured,
            excess,
            _compute_whiskers(spot, [gene for gene, *_ in rows], baseline),
        )
        self._show_captions(spot, baseline, bool(measured))

    def _show_captions(
        self, spot: Prediction, baseline: GeneBaseline | None, measured: bool
    ) -> None:
        lines = []
        if baseline is not None:
            lines.append(f"SD from the mean of {baseline.source}.")
        elif self.sort_combo.currentText() == SORT_BY_EXCESS:
            lines.append("Highest first: no average is known for this model and slide.")
        if measured:
            second = "After |:" if baseline is not None else "Thin bar and second number:"
            lines.append(f"{second} measured.")
        if self.gene_bars.whiskers:
            lines.append(f"Line: +/- spread, {spot.provenance.get('spread', 'of the networks')}.")
        if spot.zero_shot_symbols:
            units = spot.get_value_units(spot.zero_shot_symbols[0])
            lines.append(f"{ZERO_SHOT_MARK} zero-shot: {units}")
        self.units_label.setText("\n".join(lines))
        self.units_label.setVisible(bool(lines))
        advice = "" if baseline is None else f"\n{baseline.advice}"
        self.units_label.setToolTip(advice.strip())
        scale = f"Predicted expression: {spot.label_scale.name}."
        self.gene_bars.setToolTip(f"{BARS_HELP}\n{scale}")

    def _bar_rows(
        self, spot: Prediction, excess: dict[str, float]
    ) -> list[tuple[str, float, bool]]:
        """The shown and the pinned genes first, then the spot's top genes."""
        session = self._session
        chosen = [g for g in (session.gene, *session.pinned) if g is not None and spot.has_gene(g)]
        values, symbols = spot.values[-1], spot.panel.symbols
        if excess:
            score = np.array([excess[g] for g in symbols])
        else:  # zero-shot genes have other units
            is_zero_shot = np.isin(symbols, spot.zero_shot_symbols)
            score = np.where(is_zero_shot, np.nan, values)
        order = np.argsort(-score, kind="stable")[:TOP_GENES]  # NaN comes last
        top = [symbols[i] for i in order if np.isfinite(score[i])]
        genes = dict.fromkeys([*chosen, *top])
        return [(g, float(spot.get_gene_values(g)[-1]), g == session.gene) for g in genes]


def _compute_excess(spot: Prediction, baseline: GeneBaseline) -> dict[str, float]:
    """Distance of every gene from its mean, in standard deviations; NaN if unknown."""
    scores = [s.symbol for s in spot.scores if spot.has_gene(s.symbol)]
    values = dict(zip(spot.panel.symbols, spot.values[-1].tolist(), strict=True))
    values |= {symbol: float(spot.get_gene_values(symbol)[-1]) for symbol in scores}
    return {symbol: baseline.compute_excess(symbol, value) for symbol, value in values.items()}


def _compute_whiskers(
    spot: Prediction, genes: list[str], baseline: GeneBaseline | None
) -> dict[str, float]:
    """Spread by gene in the units of the bars; {} for a prediction without one."""
    if spot.spread is None:
        return {}
    spread = {gene: spot.get_gene_spread(gene, -1) for gene in genes}
    if baseline is None:
        return spread
    return {
        gene: baseline.compute_excess(gene, value) - baseline.compute_excess(gene, 0.0)
        for gene, value in spread.items()
    }
