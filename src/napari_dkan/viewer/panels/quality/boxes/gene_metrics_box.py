"""Boxes for the table of gene metrics and for the scatter plot of the current gene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit, QPushButton, QWidget

from .....atomic_write import atomic_write
from ....widgets.correlation_plots import MeasuredPredictedScatter
from ....widgets.metrics_table import MetricsTable, table_to_csv
from ....widgets.qt_utils import fill_column, make_row, make_text_label
from ....widgets.signal_connections import SignalConnections
from ....widgets.wide_table import ColumnPager
from ..data.comparison_metrics import ComparisonMetrics, make_export_table
from ..data.quality_model import QualityModel

VISIBLE_ROWS = 9


class GeneMetricsBox(QWidget):
    """Table of gene metrics; selecting a row shows the gene, and the current gene is selected."""

    def __init__(self, connections: SignalConnections, metrics: ComparisonMetrics) -> None:
        super().__init__()
        self._metrics = metrics
        self._session = session = metrics.session
        self.search_field = QLineEdit()
        self.search_field.setPlaceholderText("search genes")
        self.search_field.setClearButtonEnabled(True)
        self.copy_button, self.save_button = QPushButton("Copy"), QPushButton("Save CSV...")
        self.copy_button.setToolTip("Copy the whole table, to paste into a spreadsheet")
        self.table = MetricsTable()
        self.table.setFixedHeight((VISIBLE_ROWS + 3) * (self.table.fontMetrics().height() + 6))
        self.legend_label = make_text_label(
            "Tinted: ridge does better (here, or by the card on held-out sections), or the 95 % "
            "interval does not lie above 0. Cannot be judged: too few counts here, which says "
            "nothing about the prediction."
        )
        self.missing_label = make_text_label()
        buttons = make_row((self.search_field, 1), self.copy_button, self.save_button)
        self.column_pager = ColumnPager(self.table)
        fill_column(
            self, buttons, self.table, self.column_pager, self.legend_label, self.missing_label
        )
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
        names = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        self.missing_label.setText(
            f"Not measured here: {len(missing):,} of the panel's genes ({names})."
        )
        self._select_current_gene()

    def _select_current_gene(self) -> None:
        self.table.select_symbol(self._session.gene)

    def _on_symbol_selected(self, symbol: str) -> None:
        with self._session.message.report_errors():
            self._session.set_gene(symbol)

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
        """Write the table; a failure is shown in the panel."""
        comparison = self._metrics.comparison
        if comparison is None:
            return
        with self._session.message.report_errors():
            with atomic_write(path) as temporary:
                temporary.write_text(table_to_csv(make_export_table(comparison)), encoding="utf-8")
            self._session.message.show(f"{path.name} is written.")


class ScatterBox(QWidget):
    """Scatter plot of measured and predicted values of the current gene, with the chosen spot."""

    def __init__(self, model: QualityModel, connections: SignalConnections) -> None:
        super().__init__()
        self._model = model
        self.scatter = MeasuredPredictedScatter()
        self.spot_label = make_text_label()
        fill_column(self, self.scatter, self.spot_label)
        self.scatter.spot_selected.connect(model.choose_spot)
        connections.connect(self.refresh, model.session.gene_changed, model.comparison_changed)
        connections.connect(self._show_spot_values, model.spot_changed)
        self.refresh()

    def refresh(self) -> None:
        comparison, gene = self._model.comparison, self._model.session.gene
        if comparison is not None and gene is not None and gene in comparison.panel:
            column = comparison.panel.row(gene)
            self.scatter.set_values(
                comparison.measured[:, column],
                comparison.predicted[:, column],
                comparison.spots.names,
            )
            self.scatter.show()
        else:
            self.scatter.set_values(np.empty(0), np.empty(0))
            self.scatter.hide()
        self._show_spot_values()

    def _show_spot_values(self) -> None:
        """Write the two values of the chosen spot below the plot."""
        comparison, gene, row = (
            self._model.comparison,
            self._model.session.gene,
            self._model.spot_row,
        )
        self.scatter.select_row(row)
        if comparison is None:
            self.spot_label.setText("")
        elif gene not in comparison.panel:
            self.spot_label.setText(f"{gene} is not measured in this section.")
        elif row is None or (spot := self._model.spot_values(row)) is None:
            self.spot_label.setText("Click a dot or a spot on the slide to see its two values.")
        else:
            self.spot_label.setText(
                f"Spot {spot.name}: {gene} measured {spot.measured:.2f}, predicted "
                f"{spot.predicted:.2f} ({spot.predicted - spot.measured:+.2f})"
            )
