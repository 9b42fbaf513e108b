"""Box that compares two checkpoints on one slide: table, maps and difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QWidget

from .....errors import DkanError
from .....samples.bundled_checkpoints import list_bundled_checkpoints
from ....layers.contrast_limits import symmetric_limits
from ....session.user_history import list_recent_checkpoints
from ....widgets.job_row import JobRow
from ....widgets.metrics_table import (
    NO_VALUE,
    MetricColumn,
    MetricsTable,
    MetricsTableData,
    make_metric_column,
)
from ....widgets.qt_utils import fill_column, make_shrinkable, make_text_label
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import WARNING_COLOR, set_text_color
from ....worker import JobFailure
from ..data.quality_model import QualityModel
from ..maps.section_maps import DIVERGING_COLORMAP
from ..maps.value_maps import MapGeometry, ValueMap, ValueMapLayers, shared_limits
from .model_comparison_job import (
    ModelComparisonProgress,
    ModelComparisonResult,
    compare_checkpoints,
)

if TYPE_CHECKING:
    from .....quality.model_comparison import ModelComparison


_MEASURED = (
    "correlation with the measured values, with the number of molecules of each spot regressed out"
)


def make_model_comparison_table(models: ModelComparison) -> MetricsTableData:
    """Make a table with a row per gene that both checkpoints predict."""
    genes, (first, second) = models.gene_comparisons, models.titles
    agreement = make_metric_column(
        "agree",
        "Correlation of the two predicted maps: 1 is the same pattern",
        [g.map_correlation for g in genes],
    )
    difference = make_metric_column(
        "differ",
        "Mean absolute difference of the two maps",
        [g.mean_abs_difference for g in genes],
        ".3f",
    )
    pcc_a = np.array([g.pcc_a for g in genes], dtype=float)
    pcc_b = np.array([g.pcc_b for g in genes], dtype=float)
    columns = [agreement]
    if np.isfinite(pcc_a).any():
        names = {"first": "1st", "second": "2nd", "": NO_VALUE}
        columns += [
            make_metric_column("1st PCC", f"{first}: {_MEASURED}", pcc_a),
            make_metric_column("2nd PCC", f"{second}: {_MEASURED}", pcc_b),
            MetricColumn(
                "better",
                f"Whose map correlates better with what was measured: 1st is {first}, 2nd is "
                f"{second}; sorted by how much better the second is",
                pcc_b - pcc_a,
                lambda row: names[genes[row].preferred_model],
            ),
        ]
    if models.has_same_label_scale:
        columns.append(difference)
    notes = tuple(g.name for g in models.panel.genes)
    return MetricsTableData(models.panel.symbols, tuple(columns), notes)


BROWSE = "Browse..."


class ModelComparisonBox(QWidget):
    """Compares the session's checkpoint with a second one that is chosen here."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._model, self._value_maps = model, value_maps
        self._session = session = model.session
        self.result: ModelComparisonResult | None = None
        self._geometry: MapGeometry | None = None
        self.checkpoint_combo = QComboBox()
        make_shrinkable(self.checkpoint_combo)
        self.checkpoint_combo.setToolTip(
            "The second checkpoint; the first is that of the Predict panel."
        )
        self.compare_button, self.cancel_button = QPushButton("Compare"), QPushButton("Cancel")
        self.job_row = JobRow(
            "second checkpoint",
            self.compare_button,
            (self.checkpoint_combo, 1),
            self.compare_button,
            self.cancel_button,
        )
        self.trained_label = make_text_label()
        set_text_color(self.trained_label, WARNING_COLOR)
        self.table = MetricsTable()
        self.table.setFixedHeight(9 * (self.table.fontMetrics().height() + 6))
        fill_column(self, self.job_row, self.trained_label, self.table)
        self.checkpoint_combo.activated.connect(self._on_checkpoint_chosen)
        self.compare_button.clicked.connect(self.compare)
        self.cancel_button.clicked.connect(self._cancel)
        self.table.symbol_selected.connect(self._on_symbol_selected)
        self.table.clicked.connect(lambda index: self.show_maps())
        connections.connect(self.list_checkpoints, session.checkpoint_changed)
        connections.connect(self.reset, session.checkpoint_changed, model.comparison_changed)
        connections.connect(self._on_slides_changed, session.slides_changed)
        connections.connect(self.refresh, session.overlays_changed)
        connections.connect(self._on_gene_changed, session.gene_changed, session.settings_changed)
        self.list_checkpoints()
        self.reset()

    # ---- choosing --------------------------------------------------------------------

    def list_checkpoints(self) -> None:
        """List the known checkpoints without the first one."""
        checkpoint = self._session.checkpoint
        first = None if checkpoint is None else checkpoint.path
        chosen = self.checkpoint_combo.currentData()
        self.checkpoint_combo.clear()
        for path in dict.fromkeys([*list_bundled_checkpoints(), *list_recent_checkpoints()]):
            if first is None or path.resolve() != first.resolve():
                self.checkpoint_combo.addItem(path.stem, path)
        self.checkpoint_combo.addItem(BROWSE, None)
        self.checkpoint_combo.setCurrentIndex(max(0, self._combo_row(chosen)))

    def _combo_row(self, path: Path | None) -> int:
        """Row of a checkpoint in the list, -1 for none."""
        paths = [self.checkpoint_combo.itemData(i) for i in range(self.checkpoint_combo.count())]
        return paths.index(path) if path is not None and path in paths else -1

    def _on_checkpoint_chosen(self, index: int) -> None:
        if self.checkpoint_combo.itemData(index) is None:
            name, _ = QFileDialog.getOpenFileName(
                self, "Second checkpoint", "", "Checkpoint (*.safetensors);;All files (*)"
            )
            if name:
                self.choose_checkpoint(Path(name))
        self.refresh()

    def choose_checkpoint(self, path: Path) -> None:
        """Choose a checkpoint file; it is added to the list."""
        if self._combo_row(path) < 0:
            self.checkpoint_combo.insertItem(0, path.stem, path)
        self.checkpoint_combo.setCurrentIndex(self._combo_row(path))
        self.refresh()

    # ---- comparing -------------------------------------------------------------------

    def compare(self) -> None:
        """Predict with the second checkpoint at the measured spots and over the tile map."""
        session, checkpoint = self._session, self._session.checkpoint
        slide, path = self._model.slide, self.checkpoint_combo.currentData()
        comparison, tile_map = self._model.comparison, self._model.tile_map
        if slide is None or checkpoint is None or path is None:
            return

        def end(failure: JobFailure | None) -> None:
            self.refresh()

        self.job_row.start(
            lambda: compare_checkpoints(session, slide, checkpoint, path, comparison, tile_map),
            self._on_item,
            on_end=end,
        )
        self.refresh()

    def _on_item(self, item: ModelComparisonProgress | ModelComparisonResult) -> None:
        if isinstance(item, ModelComparisonProgress):
            if self.job_row.progress_bar.show_progress(item.done, item.total, item.description):
                self.job_row.status_label.setText(item.description)
            return
        self.result = item
        self.table.set_table_data(make_model_comparison_table(item.table_comparison), sort_by=1)
        self.job_row.status_label.setText(item.table_comparison.format_verdict())
        self.trained_label.setText(_describe_training_overlap(item))
        self._geometry = MapGeometry(item.slide, item.target.spots, item.target.grid)
        self.show_maps()

    def _cancel(self) -> None:
        self.job_row.cancel("Cancelled.")
        self.refresh()

    def reset(self) -> None:
        """Drop the result, after the checkpoint or the section changed."""
        self.job_row.cancel()
        if self._geometry is not None and self._value_maps.geometry is self._geometry:
            self._value_maps.remove()
        self.result = self._geometry = None
        self.refresh()

    def _on_slides_changed(self) -> None:
        if self.result is not None and self.result.slide not in self._session.slides:
            self.reset()

    def refresh(self) -> None:
        busy = self.job_row.busy
        has_prediction = self._model.comparison is not None or self._model.tile_map is not None
        is_ready = has_prediction and self.checkpoint_combo.currentData() is not None
        self.compare_button.setEnabled(is_ready and not busy)
        self.compare_button.setVisible(not busy)
        self.cancel_button.setVisible(busy)
        self.job_row.progress_bar.setVisible(busy)
        self.table.setVisible(self.result is not None)
        self.trained_label.setVisible(self.result is not None and bool(self.trained_label.text()))
        if not has_prediction and not busy:
            self.job_row.status_label.setText(
                "Load measured spots, or predict a region or the whole tissue first."
            )

    # ---- showing ---------------------------------------------------------------------

    def _on_symbol_selected(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self.job_row.status_label.setText(str(error))

    def _on_gene_changed(self) -> None:
        """Draw the maps of the current gene, if they are on the canvas."""
        self.table.select_symbol(self._session.gene)
        if self._geometry is not None and self._value_maps.geometry is self._geometry:
            self.show_maps()

    def show_maps(self) -> None:
        """Show the current gene by the first and the second checkpoint and their difference."""
        result, geometry, gene = self.result, self._geometry, self._session.gene
        if result is None or geometry is None:
            return
        self.table.select_symbol(gene)
        if gene is None or gene not in result.map_comparison.panel:
            self._value_maps.remove()
            return
        maps = make_value_maps(result, gene, self._session.settings.colormap)
        caption = f"{gene}\n{result.label_scale_name}".replace(", ", ",\n")
        self._value_maps.show(geometry, maps, caption)


def make_value_maps(result: ModelComparisonResult, gene: str, colormap: str) -> list[ValueMap]:
    """Make the maps of one gene: measured if known, both predicted, and second minus first.

    Predicted and measured maps share their limits. On different label scales each map has its
    own, and there is no difference.
    """
    models, comparison = result.map_comparison, result.comparison
    column = models.panel.row(gene)
    predicted = zip(models.titles, (models.values_a, models.values_b), strict=True)
    values = {f"{gene} predicted, {title}": v[:, column] for title, v in predicted}
    if comparison is not None and result.target.grid is None and gene in comparison.panel:
        measured = comparison.measured[models.spot_rows, comparison.panel.row(gene)]
        values = {f"{gene} measured": measured, **values}
    if not models.has_same_label_scale:
        return [ValueMap(n, v, shared_limits(v), colormap) for n, v in values.items()]
    limits = shared_limits(*values.values())
    maps = [ValueMap(n, v, limits, colormap) for n, v in values.items()]
    difference = models.difference[:, column]
    limits = symmetric_limits(difference)
    return [*maps, ValueMap(f"{gene} second minus first", difference, limits, DIVERGING_COLORMAP)]


def _describe_training_overlap(result: ModelComparisonResult) -> str:
    """Warn about measured values on a slide that a checkpoint was trained on."""
    if not result.titles_trained_on_slide or result.comparison is None:
        return ""
    titles = " and ".join(result.titles_trained_on_slide)
    were = "were" if len(result.titles_trained_on_slide) > 1 else "was"
    return f"{titles} {were} trained on this slide, so what is measured here is no fair judge."
