"""Several genes at once: two or three in added colours, up to nine side by side."""

from __future__ import annotations

import re

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QLinearGradient, QPaintEvent
from qtpy.QtWidgets import QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from ....errors import DkanError, SpotsError
from ....quality.color_mix import MAX_MIXED_GENES
from ...session.viewer_session import ViewerSession
from ...tools.color_mix import ColorMix
from ...widgets.correlation_plots import ALIGN_LEFT, ALIGN_RIGHT, make_painter
from ...widgets.qt_utils import make_row
from ...widgets.signal_connections import SignalConnections
from .gene_grid_window import MAX_GENES, GeneGridWindow


class MixLegend(QWidget):
    """A ramp from black to the colour of each gene, with its limits."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[tuple[str, QColor, tuple[float, float]], ...] = ()
        self.setToolTip(
            "Black: the lower limit. The colours add up: white where all genes are high."
        )

    def sizeHint(self) -> QSize:
        return QSize(240, len(self.rows) * self._row_height())

    def _row_height(self) -> int:
        return self.fontMetrics().height() + 3

    def set_rows(self, rows: tuple[tuple[str, QColor, tuple[float, float]], ...]) -> None:
        """Show genes with their colours and limits."""
        self.rows = rows
        self.setFixedHeight(len(rows) * self._row_height())
        self.setVisible(bool(rows))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, ink = make_painter(self)
        metrics, height = self.fontMetrics(), self._row_height()
        texts = [f"{limit:.2f}" for _, _, limits in self.rows for limit in limits]
        number = 8.0 + max((metrics.horizontalAdvance(text) for text in texts), default=0)
        name = min(110.0, self.width() * 0.35)
        for row, (gene, color, (low, high)) in enumerate(self.rows):
            y = row * height
            painter.setPen(ink)
            elided = metrics.elidedText(gene, Qt.TextElideMode.ElideRight, round(name))
            painter.drawText(QRectF(0, y, name, height), ALIGN_LEFT, elided)
            painter.drawText(QRectF(name, y, number - 4, height), ALIGN_RIGHT, f"{low:.2f}")
            painter.drawText(
                QRectF(self.width() - number + 4, y, number - 4, height), ALIGN_LEFT, f"{high:.2f}"
            )
            ramp = QRectF(name + number, y + 3, self.width() - name - 2 * number, height - 6)
            gradient = QLinearGradient(ramp.left(), 0, ramp.right(), 0)
            gradient.setColorAt(0, QColor("black"))
            gradient.setColorAt(1, color)
            painter.setBrush(gradient)
            painter.drawRect(ramp)
        painter.end()


class SeveralGenesBox(QWidget):
    """Genes of a list, or the pinned ones, in one picture."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, mix: ColorMix
    ) -> None:
        super().__init__()
        self._session, self._mix = session, mix
        self.genes_field = QLineEdit()
        self.genes_field.setToolTip(
            "Genes with commas between them, by symbol or old symbol; empty: the pinned genes"
        )
        self.colors_button = QPushButton("In colours")
        self.colors_button.setCheckable(True)
        self.colors_button.setToolTip(
            f"The first two or {MAX_MIXED_GENES} genes in a colour each, added up; "
            "press again for the map of one gene"
        )
        self.grid_button = QPushButton("Side by side")
        self.grid_button.setToolTip(
            f"A map for each of up to {MAX_GENES} genes, in a window that follows the canvas"
        )
        self.grid_window = GeneGridWindow(session, connections, self)
        self.legend = MixLegend()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(make_row(QLabel("Genes"), (self.genes_field, 1)))
        layout.addLayout(make_row(self.colors_button, self.grid_button))
        layout.addWidget(self.legend)
        self.colors_button.clicked.connect(self._toggle_colors)
        self.grid_button.clicked.connect(self._show_grid)
        self.genes_field.editingFinished.connect(self._on_genes_edited)
        connections.connect(self._on_pinned, session.pinned_changed)
        connections.connect(self.refresh, mix.changed, session.checkpoint_changed)
        self.refresh()

    def genes(self) -> tuple[str, ...]:
        """Return the symbols of the list, else the pinned genes, each once.

        Raises
        ------
        SpotsError
            If one of them cannot be shown.
        """
        session, panel = self._session, self._session.gene_panel
        text = self.genes_field.text().strip()
        if panel is None:
            return ()
        if not text:
            return tuple(dict.fromkeys(session.pinned))
        names = [name.strip() for name in re.split(r"[,;]", text) if name.strip()]
        if len(names) == 1 and names[0] not in panel:
            names = names[0].split()  # a score has spaces in its name
        return tuple(dict.fromkeys(panel.symbols[panel.row(name)] for name in names))

    def _show_grid(self) -> None:
        """Open the window, with the shown gene first where nothing is named."""
        session = self._session
        try:
            genes = self.genes()
            if not self.genes_field.text().strip() and session.gene is not None:
                genes = tuple(dict.fromkeys((session.gene, *genes)))
            if len(genes) > MAX_GENES:
                session.message.show(f"The first {MAX_GENES} of {len(genes)} genes are shown.")
            self.grid_window.show_genes(genes)
        except DkanError as error:
            session.message.show(str(error), warning=True)

    def _toggle_colors(self, checked: bool) -> None:
        try:
            self._mix.show(self._choose_mixed() if checked else ())
        except DkanError as error:
            self._session.message.show(str(error), warning=True)
        self.refresh()

    def _choose_mixed(self) -> tuple[str, ...]:
        """The first genes of the list; what is missing to two is asked for."""
        genes = self.genes()[:MAX_MIXED_GENES]
        if len(genes) < 2:
            raise SpotsError("Name two or three genes, or pin them, to see them in colours.")
        if not self._mix.can_show(genes):
            raise SpotsError(
                f"This slide has no map of {' and '.join(genes)} yet; predict a region first."
            )
        return genes

    def _on_genes_edited(self) -> None:
        if not self.genes_field.isModified():
            return
        self.genes_field.setModified(False)
        if self._mix.genes:
            self._toggle_colors(True)
        if self.grid_window.isVisible():
            self._show_grid()

    def _on_pinned(self) -> None:
        self.refresh()
        if self.genes_field.text().strip():
            return
        if self._mix.genes:
            self._toggle_colors(True)
        if self.grid_window.isVisible():
            self._show_grid()

    def refresh(self) -> None:
        """Follow the mix and the pinned genes."""
        session, mix = self._session, self._mix
        self.setEnabled(session.gene_panel is not None)
        self.genes_field.setPlaceholderText(f"pinned: {', '.join(session.pinned)}")
        self.colors_button.setChecked(bool(mix.genes))
        rows = zip(mix.genes, mix.colors, mix.limits, strict=False)
        self.legend.set_rows(
            tuple((gene, QColor.fromRgbF(*color.rgb), limits) for gene, color, limits in rows)
        )
