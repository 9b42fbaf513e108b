"""Box to compare a region or class with another one, or with the rest of the tissue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QPushButton, QWidget
from superqt.utils import signals_blocked

from ....errors import DkanError
from ...layers.region_objects import DOMAINS_KEY
from ...widgets.job_row import JobRow
from ...widgets.metrics_table import MetricsTable
from ...widgets.qt_utils import fill_column, make_row, make_shrinkable, make_text_label
from ...widgets.region_plots import BoxGroup, BoxPlots, VolcanoPlot
from ...widgets.signal_connections import SignalConnections
from ...widgets.wide_table import ColumnPager
from .comparison_job import ComparisonRequest, ComparisonResult, run_comparison
from .comparison_table import (
    SIGNIFICANT,
    describe_result,
    make_comparison_table,
    short_name,
    write_comparison,
)
from .regions_model import RegionGroup, RegionsModel
from .set_score_map import SetScoreMap

REST = "the rest"
GENES, HALLMARK, BROWSE = "genes", "Hallmark sets", "a GMT file..."
TABLE_ROWS = 9


class ComparisonBox(QWidget):
    """Chooses A and B, compares them, and shows plots and a table of the genes."""

    def __init__(self, model: RegionsModel, connections: SignalConnections) -> None:
        super().__init__()
        self._model, self._session = model, model.session
        self.result: ComparisonResult | None = None
        self._set_map = SetScoreMap(model.session, connections)
        self._chosen_set: str | None = None
        self._files: dict[str, Path] = {}
        self.a_combo, self.b_combo, self.of_combo = QComboBox(), QComboBox(), QComboBox()
        for combo in (self.a_combo, self.b_combo, self.of_combo):
            make_shrinkable(combo)
        self.of_combo.addItems([GENES, HALLMARK, BROWSE])
        self.compare_button = QPushButton("Compare")
        self.save_button = QPushButton("Save table...")
        self.job_row = JobRow(
            "compare regions",
            self.compare_button,
            (self.of_combo, 1),
            self.compare_button,
            self.save_button,
        )
        self.stale_label = make_text_label()
        self.volcano, self.box_plots = VolcanoPlot(), BoxPlots()
        self.table = MetricsTable("Gene", long_names=False)
        self.table.setFixedHeight(TABLE_ROWS * (self.table.fontMetrics().height() + 6))
        self.column_pager = ColumnPager(self.table)
        self._result_widgets = (self.volcano, self.box_plots, self.table, self.save_button)
        fill_column(
            self,
            make_row(QLabel("A"), (self.a_combo, 1), QLabel("with B"), (self.b_combo, 1)),
            self.job_row,
            self.stale_label,
            self.volcano,
            self.box_plots,
            self.table,
            self.column_pager,
        )
        self.of_combo.activated.connect(self._on_of_chosen)
        for combo in (self.a_combo, self.b_combo):
            combo.activated.connect(lambda index, combo=combo: combo.setProperty("chosen", True))
        self.compare_button.clicked.connect(self.compare)
        self.save_button.clicked.connect(self._ask_save)
        self.volcano.gene_selected.connect(self.show_gene)
        self.table.symbol_selected.connect(self.show_gene)
        connections.connect(self._refresh_choices, model.changed)
        connections.connect(self._on_gene_changed, self._session.gene_changed)
        self._refresh_choices()
        self._show_result_widgets()

    def close_box(self) -> None:
        """Stop the job and remove the map of a gene set."""
        self.job_row.stop()
        self._set_map.remove()

    # ---- choices -----------------------------------------------------------------------

    def _refresh_choices(self) -> None:
        """Offer the classes and regions; what was chosen stays chosen."""
        groups = self._model.groups
        names = [g.name for g in groups]
        classes = [g.name for g in groups if g.is_class]
        for combo, default, entries in (
            (self.a_combo, classes[0] if classes else "", names),
            (self.b_combo, classes[1] if len(classes) > 1 else REST, [REST, *names]),
        ):
            chosen = combo.currentText() if combo.property("chosen") else ""
            with signals_blocked(combo):
                combo.clear()
                combo.addItems(entries)
                combo.setCurrentText(chosen if chosen in entries else default)
            if chosen not in entries:
                combo.setProperty("chosen", False)
        self.compare_button.setEnabled(bool(names) and not self.job_row.busy)
        self._mark_stale()

    def _on_of_chosen(self, index: int) -> None:
        if self.of_combo.itemText(index) != BROWSE:
            return
        name, _ = QFileDialog.getOpenFileName(self, "Gene sets", "", "Gene sets (*.gmt);;All (*)")
        if not name:
            self.of_combo.setCurrentIndex(0)
            return
        path = Path(name)
        if path.name not in self._files:
            self.of_combo.insertItem(self.of_combo.count() - 1, path.name)
        self._files[path.name] = path
        self.of_combo.setCurrentText(path.name)

    def _group(self, name: str) -> RegionGroup | None:
        return next((g for g in self._model.groups if g.name == name), None)

    # ---- comparing ---------------------------------------------------------------------

    def compare(self) -> None:
        """Compare what is chosen in a worker thread."""
        a, b = self._group(self.a_combo.currentText()), self._group(self.b_combo.currentText())
        is_rest = self.b_combo.currentText() == REST
        if a is None or (b is None and not is_rest):
            self.job_row.status_label.setText("Draw a region first, or take one from a file.")
            return
        if a is b:
            self.job_row.status_label.setText("A and B are the same; choose another one.")
            return
        chosen = self.of_combo.currentText()
        request = ComparisonRequest(
            a.name,
            REST if b is None else b.name,
            a.geometries,
            None if b is None else b.geometries,
            self._model.tiles(),
            self._model.measured(),
            self._model.measured_depth(),
            {GENES: None, HALLMARK: ""}.get(chosen, self._files.get(chosen)),
            any(
                DOMAINS_KEY in o.layer.metadata for g in (a, b) if g is not None for o in g.objects
            ),
        )
        self._colors = QColor(*a.color), QColor("#9e9e9e") if b is None else QColor(*b.color)

        def job() -> Iterator[ComparisonResult]:
            yield run_comparison(request)

        self.job_row.start(job, self._show_result, "Comparing ...")

    def _show_result(self, result: ComparisonResult) -> None:
        self.result, self._chosen_set = result, None
        self._set_map.remove()
        self.job_row.status_label.setText(describe_result(result))
        comparison = result.predicted.comparison
        x_label = f"difference: {short_name(result.request.name_a)} \N{MINUS SIGN} "
        x_label += short_name(result.request.name_b)
        if comparison.is_tested:
            y = -np.log10(comparison.p_value)
            significant = comparison.p_adjusted < SIGNIFICANT
            y_label = "\N{MINUS SIGN}log10 p (coloured: adjusted p < 0.05)"
        else:
            y, significant = np.abs(comparison.effect), np.zeros(len(comparison.symbols), bool)
            y_label = "difference in SD, not tested"
        self.volcano.set_genes(
            comparison.symbols, comparison.difference, y, significant, x_label, y_label
        )
        self.table.table_model.first_header = "Gene" if result.request.sets is None else "Gene set"
        self.table.set_table_data(make_comparison_table(result))
        self._show_result_widgets()
        self._mark_stale()
        if result.request.sets is None:
            self._on_gene_changed()
        else:
            self._mark(None)
        self.table.scrollToTop()

    def _show_result_widgets(self) -> None:
        for widget in self._result_widgets:
            widget.setVisible(self.result is not None)

    def _mark_stale(self) -> None:
        """Say when regions have changed since the comparison."""
        result = self.result
        if result is None:
            self.stale_label.hide()
            return
        request = result.request
        is_stale = False
        for name, regions in (
            (request.name_a, request.regions_a),
            (request.name_b, request.regions_b),
        ):
            group = self._group(name)
            if regions is None:
                continue
            geometries = [] if group is None else group.geometries
            is_stale |= len(geometries) != len(regions) or not all(
                g.equals(r) for g, r in zip(geometries, regions, strict=True)
            )
        self.stale_label.setText("The regions have changed since; compare again.")
        self.stale_label.setVisible(is_stale)

    # ---- one gene ----------------------------------------------------------------------

    def show_gene(self, symbol: str) -> None:
        """Show the map of a gene, or of a gene set."""
        if self.result is None:
            return
        if self.result.request.sets is None:
            try:
                self._session.set_gene(symbol)
            except DkanError as error:
                self.job_row.status_label.setText(str(error))
            self._mark(symbol)
        else:
            self._chosen_set = symbol
            self._mark(symbol)
            if self._model.slide is not None:
                self._set_map.show(self.result.predicted, symbol, self._model.slide)

    def _on_gene_changed(self) -> None:
        self._set_map.remove()
        if self.result is not None and self.result.request.sets is None:
            self._mark(self._session.gene)

    def _mark(self, symbol: str | None) -> None:
        self.volcano.select(symbol)
        self.table.select_symbol(symbol)
        self._draw_boxes(symbol)

    def _draw_boxes(self, symbol: str | None) -> None:
        result = self.result
        symbols = () if result is None else result.predicted.comparison.symbols
        if result is None or symbol is None or symbol not in symbols:
            self.box_plots.hide()
            return
        groups: list[BoxGroup] = []
        for source, compared in (("predicted", result.predicted), ("measured", result.measured)):
            if compared is None or symbol not in compared.comparison.symbols:
                continue
            values = compared.values[:, compared.comparison.symbols.index(symbol)]
            request = result.request
            for name, inside, color in (
                (request.name_a, compared.in_a, self._colors[0]),
                (request.name_b, compared.in_b, self._colors[1]),
            ):
                shown = (
                    short_name(name) if result.measured is None else f"{short_name(name)}, {source}"
                )
                groups.append(BoxGroup(shown, np.asarray(values[inside], float), color))
        kind = "predicted" if result.measured is None else "predicted and measured"
        self.box_plots.set_groups(f"{symbol}, {kind}, per tile", tuple(groups))
        self.box_plots.show()

    # ---- file --------------------------------------------------------------------------

    def _ask_save(self) -> None:
        if self.result is None:
            return
        request = self.result.request
        name = f"{request.name_a}-{request.name_b}.csv".replace("/", "_")
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the comparison", name, "Table (*.csv)")
        if chosen:
            self.save_table(Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv"))

    def save_table(self, path: Path) -> None:
        """Write all columns of both comparisons as CSV."""
        if self.result is None:
            return
        try:
            write_comparison(path, self.result)
        except DkanError as error:
            self.job_row.status_label.setText(str(error))
            return
        self.job_row.status_label.setText(
            f"{path.name} was written.\n{describe_result(self.result)}"
        )
