"""Boxes for the table of gene metrics and for the scatter plot of the current gene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .....atomic_write import atomic_write
from .....errors import DkanError
from ....session.viewer_session import ViewerSession
from ....widgets.correlation_plots import MeasuredPredictedScatter
from ....widgets.metrics_table import MetricsTable, table_to_csv
from ....widgets.signal_connections import SignalConnections
from ..data.comparison_metrics import ComparisonMetrics, make_export_table
from ..quality_controller import QualityController

VISIBLE_ROWS = 9


class GeneMetricsBox(QWidget):
    """Selecting a row shows the gene; a gene chosen elsewhere selects its row."""

    def __init__(
        self,
        session: ViewerSession,
        quality: QualityController,
        connections: SignalConnections,
        metrics: ComparisonMetrics,
    ) -> None:
        super().__init__()
        self._session, self._quality, self._metrics = session, quality, metrics
        self.search_field = QLineEdit()
        self.search_field.setPlaceholderText("search genes")
        self.search_field.setClearButtonEnabled(True)
        self.copy_button, self.save_button = QPushButton("Copy"), QPushButton("Save CSV...")
        self.copy_button.setToolTip("Copy the whole table, to paste into a spreadsheet")
        self.table = MetricsTable()
        self.table.setFixedHeight((VISIBLE_ROWS + 3) * (self.table.fontMetrics().height() + 6))
        self.legend_label = QLabel(
            "Tinted: ridge does better (here, or by the card on held-out sections), or the 95 % "
            "interval does not lie above 0."
        )
        self.legend_label.setWordWrap(True)
        self.missing_label = QLabel()
        self.missing_label.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.search_field, 1)
        line.addWidget(self.copy_button)
        line.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        for widget in (self.table, self.legend_label, self.missing_label):
            layout.addWidget(widget)
        self.search_field.textChanged.connect(self.table.table_model.set_filter)
        self.table.symbol_selected.connect(self._on_symbol_selected)
        self.copy_button.clicked.connect(self._copy_table)
        self.save_button.clicked.connect(self._ask_save_path)
        connections.connect(self.refresh, metrics.changed)
        connections.connect(self._select_current_gene, session.gene_changed)
        self.refresh()

    def refresh(self) -> None:
        self.table.set_table_data(self._metrics.table_data)
        comparison = self._metrics.comparison
        self.setEnabled(comparison is not None)
        missing = () if comparison is None else comparison.unmeasured_genes
        self.missing_label.setVisible(bool(missing))
        few = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        self.missing_label.setText(
            f"Not measured here: {len(missing):,} of the panel's genes ({few})."
        )
        self._select_current_gene()

    def _select_current_gene(self) -> None:
        self.table.select_symbol(self._session.gene)

    def _on_symbol_selected(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self._session.message.show(str(error), warning=True)

    def _copy_table(self) -> None:
        if (comparison := self._metrics.comparison) is not None:
            QApplication.clipboard().setText(
                table_to_csv(make_export_table(comparison)).replace(",", "\t")
            )

    def _ask_save_path(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the gene table", "genes.csv", "Table (*.csv)"
        )
        if name:
            self.save_csv(Path(name))

    def save_csv(self, path: Path) -> None:
        """Write the table; what goes wrong is said in the panel."""
        comparison = self._metrics.comparison
        if comparison is None:
            return
        try:
            with atomic_write(path) as temporary:
                temporary.write_text(table_to_csv(make_export_table(comparison)), encoding="utf-8")
        except DkanError as error:
            self._session.message.show(str(error), warning=True)
        else:
            self._session.message.show(f"{path.name} is written.")


class ScatterBox(QWidget):
    """The chosen gene at all spots, measured against predicted, and the chosen spot in it."""

    def __init__(
        self, session: ViewerSession, quality: QualityController, connections: SignalConnections
    ) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self.scatter = MeasuredPredictedScatter()
        self.spot_label = QLabel()
        self.spot_label.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.scatter)
        layout.addWidget(self.spot_label)
        self.scatter.spot_selected.connect(quality.choose_spot)
        connections.connect(self.refresh, session.gene_changed, quality.comparison_changed)
        connections.connect(self._show_spot_values, quality.spot_changed)
        self.refresh()

    def refresh(self) -> None:
        comparison, gene = self._quality.comparison, self._session.gene
        known = comparison is not None and gene in comparison.panel
        self.scatter.setVisible(known)
        if comparison is not None and known:
            column = comparison.panel.row(gene or "")
            names = comparison.spots.names
            self.scatter.set_values(
                comparison.measured[:, column], comparison.predicted[:, column], names
            )
        else:
            self.scatter.set_values(np.empty(0), np.empty(0))
        self._show_spot_values()

    def _show_spot_values(self) -> None:
        """The chosen spot's two numbers, in words."""
        comparison, gene, row = self._quality.comparison, self._session.gene, self._quality.spot_row
        self.scatter.select_row(row)
        if comparison is None:
            self.spot_label.setText("")
        elif gene not in comparison.panel:
            self.spot_label.setText(f"{gene} is not measured in this section.")
        elif row is None:
            self.spot_label.setText("Click a dot or a spot on the slide to see its two values.")
        else:
            column = comparison.panel.row(gene or "")
            measured = float(comparison.measured[row, column])
            predicted = float(comparison.predicted[row, column])
            name = comparison.spots.names[row] if comparison.spots.names else str(row + 1)
            self.spot_label.setText(
                f"Spot {name}: {gene} measured {measured:.2f}, predicted {predicted:.2f} "
                f"({predicted - measured:+.2f})"
            )
