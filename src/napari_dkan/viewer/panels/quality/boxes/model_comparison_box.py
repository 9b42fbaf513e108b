"""Box that compares two checkpoints on one slide: table, maps and difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .....errors import DkanError
from .....samples.bundled_checkpoints import list_bundled_checkpoints
from ....session.user_history import list_recent_checkpoints
from ....session.viewer_session import ViewerSession
from ....widgets.metrics_table import (
    NO_VALUE,
    MetricColumn,
    MetricsTable,
    MetricsTableData,
    make_metric_column,
)
from ....widgets.qt_utils import make_shrinkable
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import WARNING_COLOR, set_text_color
from ....worker import JobFailure, JobRunner
from ..data.tile_map_lookup import find_tile_map, get_quality_slide
from ..maps.section_maps import DIVERGING_COLORMAP
from ..maps.value_maps import MapGeometry, ValueMap, ValueMapLayers, shared_limits, symmetric_limits
from ..quality_controller import QualityController
from .model_comparison_job import (
    ModelComparisonProgress,
    ModelComparisonResult,
    compare_checkpoints,
)

if TYPE_CHECKING:
    from .....quality.model_comparison import ModelComparison


def make_model_comparison_table(rivals: ModelComparison) -> MetricsTableData:
    """One row per gene that both predict."""
    genes, (first, second) = rivals.gene_comparisons, rivals.titles
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
            make_metric_column("1st PCC", f"{first}: correlation with the measured values", pcc_a),
            make_metric_column("2nd PCC", f"{second}: correlation with the measured values", pcc_b),
            MetricColumn(
                "better",
                f"Whose map correlates better with what was measured: 1st is {first}, 2nd is "
                f"{second}; sorted by how much better the second is",
                pcc_b - pcc_a,
                lambda row: names[genes[row].preferred_model],
            ),
        ]
    if rivals.has_same_label_scale:
        columns.append(difference)
    notes = tuple(g.name for g in rivals.panel.genes)
    return MetricsTableData(rivals.panel.symbols, tuple(columns), notes)


BROWSE = "Browse..."


class ModelComparisonBox(QWidget):
    """The session's checkpoint is the first; the second is chosen here."""

    def __init__(
        self,
        session: ViewerSession,
        quality: QualityController,
        connections: SignalConnections,
        value_maps: ValueMapLayers,
    ) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._runner = JobRunner("second checkpoint")
        self._value_maps = value_maps
        self.result: ModelComparisonResult | None = None
        self._geometry: MapGeometry | None = None
        self.checkpoint_combo = QComboBox()
        make_shrinkable(self.checkpoint_combo)
        self.checkpoint_combo.setToolTip(
            "The second checkpoint; the first is that of the Predict panel."
        )
        self.compare_button, self.cancel_button = QPushButton("Compare"), QPushButton("Cancel")
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setMaximumHeight(8)
        self.status_label, self.trained_label = QLabel(), QLabel()
        set_text_color(self.trained_label, WARNING_COLOR)
        for label in (self.status_label, self.trained_label):
            label.setWordWrap(True)
        self.table = MetricsTable()
        self.table.setFixedHeight(9 * (self.table.fontMetrics().height() + 6))
        line = QHBoxLayout()
        line.addWidget(self.checkpoint_combo, 1)
        line.addWidget(self.compare_button)
        line.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        for widget in (self.progress_bar, self.status_label, self.trained_label, self.table):
            layout.addWidget(widget)
        self.checkpoint_combo.activated.connect(self._on_checkpoint_chosen)
        self.compare_button.clicked.connect(self.compare)
        self.cancel_button.clicked.connect(self._cancel)
        self.table.symbol_selected.connect(self._on_symbol_selected)
        self.table.clicked.connect(lambda index: self.show_maps())
        connections.connect(self.list_checkpoints, session.checkpoint_changed)
        connections.connect(self.reset, session.checkpoint_changed, quality.comparison_changed)
        connections.connect(self._on_slides_changed, session.slides_changed)
        connections.connect(self.refresh, session.overlays_changed)
        connections.connect(self._on_gene_changed, session.gene_changed, session.settings_changed)
        self.list_checkpoints()
        self.reset()

    def stop_jobs(self) -> None:
        self._runner.cancel()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    # ---- choosing --------------------------------------------------------------------

    def list_checkpoints(self) -> None:
        """All but the first one."""
        checkpoint = self._session.checkpoint
        first = None if checkpoint is None else checkpoint.path
        before = self.checkpoint_combo.currentData()
        self.checkpoint_combo.clear()
        for path in dict.fromkeys([*list_bundled_checkpoints(), *list_recent_checkpoints()]):
            if first is None or path.resolve() != first.resolve():
                self.checkpoint_combo.addItem(path.stem, path)
        self.checkpoint_combo.addItem(BROWSE, None)
        self.checkpoint_combo.setCurrentIndex(max(0, self._combo_row(before)))

    def _combo_row(self, path: Path | None) -> int:
        """Of a checkpoint in the list, -1 where it is not there."""
        paths = [self.checkpoint_combo.itemData(i) for i in range(self.checkpoint_combo.count())]
        return paths.index(path) if path is not None and path in paths else -1

    def _on_checkpoint_chosen(self, index: int) -> None:
        if self.checkpoint_combo.itemData(index) is None:
            name, _ = QFileDialog.getOpenFileName(
                self, "Second checkpoint", "", "DKAN checkpoint (*.safetensors);;All files (*)"
            )
            if name:
                self.choose_checkpoint(Path(name))
        self.refresh()

    def choose_checkpoint(self, path: Path) -> None:
        """Choose a checkpoint file."""
        if self._combo_row(path) < 0:
            self.checkpoint_combo.insertItem(0, path.stem, path)
        self.checkpoint_combo.setCurrentIndex(self._combo_row(path))
        self.refresh()

    # ---- comparing -------------------------------------------------------------------

    def compare(self) -> None:
        """Predict with the second checkpoint at the measured spots and over the tile map."""
        session, slide, path = (
            self._session,
            get_quality_slide(self._quality),
            self.checkpoint_combo.currentData(),
        )
        comparison, tiles = self._quality.comparison, find_tile_map(self._quality)
        checkpoint = session.checkpoint
        if slide is None or checkpoint is None or path is None:
            return

        self._runner.start(
            lambda: compare_checkpoints(session, slide, checkpoint, path, comparison, tiles),
            self._on_item,
            self._on_finished,
        )
        self.status_label.setText("")
        self.refresh()

    def _on_item(self, item: ModelComparisonProgress | ModelComparisonResult) -> None:
        if isinstance(item, ModelComparisonProgress):
            self.progress_bar.setRange(0, item.total)
            self.progress_bar.setValue(item.done)
            self.status_label.setText(item.description)
            return
        self.result = item
        self.table.set_table_data(make_model_comparison_table(item.table_comparison), sort_by=1)
        self.status_label.setText(item.table_comparison.format_verdict())
        self.trained_label.setText(_describe_training_overlap(item))
        self._geometry = MapGeometry(item.slide, item.target.spots, item.target.grid)
        self.show_maps()

    def _on_finished(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.status_label.setText(failure.message)
        self.refresh()

    def _cancel(self) -> None:
        self._runner.cancel()
        self.status_label.setText("Cancelled.")
        self.refresh()

    def reset(self) -> None:
        """Another checkpoint or another section: what was matched holds no longer."""
        self._runner.cancel()
        if self._geometry is not None and self._value_maps.geometry is self._geometry:
            self._value_maps.remove()
        self.result = self._geometry = None
        self.status_label.setText("")
        self.refresh()

    def _on_slides_changed(self) -> None:
        if self.result is not None and self.result.slide not in self._session.slides:
            self.reset()

    def refresh(self) -> None:
        busy = self.busy
        anywhere = self._quality.comparison is not None or find_tile_map(self._quality)
        ready = bool(anywhere) and self.checkpoint_combo.currentData() is not None
        self.compare_button.setEnabled(ready and not busy)
        self.compare_button.setVisible(not busy)
        self.cancel_button.setVisible(busy)
        self.progress_bar.setVisible(busy)
        self.table.setVisible(self.result is not None)
        self.trained_label.setVisible(self.result is not None and bool(self.trained_label.text()))
        if not anywhere and not busy:
            self.status_label.setText(
                "Load measured spots, or predict a region or the whole tissue first."
            )

    # ---- showing ---------------------------------------------------------------------

    def _on_symbol_selected(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self.status_label.setText(str(error))

    def _on_gene_changed(self) -> None:
        """Another gene: other maps, if it is these that are shown."""
        self.table.select_symbol(self._session.gene)
        if self._geometry is not None and self._value_maps.geometry is self._geometry:
            self.show_maps()

    def show_maps(self) -> None:
        """The chosen gene by the first, by the second, and second minus first."""
        match, places, gene = self.result, self._geometry, self._session.gene
        if match is None or places is None:
            return
        self.table.select_symbol(gene)
        if gene not in match.map_comparison.panel:
            self._value_maps.remove()
            return
        maps = make_value_maps(match, gene or "", self._session.settings.colormap)
        self._value_maps.show(
            places, maps, f"{gene}\n{match.label_scale_name}".replace(", ", ",\n")
        )


def make_value_maps(result: ModelComparisonResult, gene: str, colormap: str) -> list[ValueMap]:
    """Measured where it is, both predicted on one scale, and their difference.

    On different label scales each has limits of its own, and there is no difference.
    """
    rivals, comparison = result.map_comparison, result.comparison
    column = rivals.panel.row(gene)
    both = zip(rivals.titles, (rivals.values_a, rivals.values_b), strict=True)
    values = {f"{gene} predicted, {title}": v[:, column] for title, v in both}
    if comparison is not None and result.target.grid is None and gene in comparison.panel:
        measured = comparison.measured[rivals.spot_rows, comparison.panel.row(gene)]
        values = {f"{gene} measured": measured, **values}
    if not rivals.has_same_label_scale:
        return [ValueMap(n, v, shared_limits(v), colormap) for n, v in values.items()]
    limits = shared_limits(*values.values())
    maps = [ValueMap(n, v, limits, colormap) for n, v in values.items()]
    difference = rivals.difference[:, column]
    reach = symmetric_limits(difference)
    return [*maps, ValueMap(f"{gene} second minus first", difference, reach, DIVERGING_COLORMAP)]


def _describe_training_overlap(result: ModelComparisonResult) -> str:
    """Figures on a slide that a checkpoint was trained on say nothing for it."""
    if not result.titles_trained_on_slide or result.comparison is None:
        return ""
    titles = " and ".join(result.titles_trained_on_slide)
    were = "were" if len(result.titles_trained_on_slide) > 1 else "was"
    return f"{titles} {were} trained on this slide, so what is measured here is no fair judge."
