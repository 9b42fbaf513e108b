"""Box for gene sets: scores of measured and predicted values and their maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QWidget

from ....widgets.job_row import JobRow
from ....widgets.metrics_table import (
    MetricsTable,
    MetricsTableData,
    format_metric,
    make_metric_column,
)
from ....widgets.qt_utils import fill_column, make_shrinkable
from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import QualityModel
from ..maps.value_maps import MapGeometry, ValueMap, ValueMapLayers, shared_limits

if TYPE_CHECKING:
    from .....quality.comparison import Comparison
    from .....quality.gene_sets import GeneSetScores


HALLMARK, BROWSE = "Hallmark (MSigDB)", "Open a GMT file..."
MAX_SKIPPED_SHOWN = 2  # all are in the tooltip


@dataclass(frozen=True)
class _GeneSetResult:
    """Measured and predicted scores of S gene sets.

    Attributes
    ----------
    comparison : Comparison
    titles : dict of str
        Titles of the sets by their names.
    measured, predicted : GeneSetScores
    pcc : ndarray
        Correlation of measured and predicted scores, (S,).
    """

    comparison: Comparison
    titles: dict[str, str]
    measured: GeneSetScores
    predicted: GeneSetScores
    pcc: NDArray[np.float64]


class GeneSetsBox(QWidget):
    """A list of gene sets; choosing one shows its measured and its predicted score."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._model, self._value_maps = model, value_maps
        self._result: _GeneSetResult | None = None
        self._geometry: MapGeometry | None = None
        self._files: dict[str, Path] = {}
        self.source_combo = QComboBox()
        self.source_combo.addItems([HALLMARK, BROWSE])
        make_shrinkable(self.source_combo)
        self.score_button = QPushButton("Score")
        self.score_button.setToolTip(
            "scanpy's score_genes, on measured and predicted values alike: the mean of a set's "
            "genes over that of others of like expression"
        )
        self.table = MetricsTable("Gene set", long_names=True)
        self.table.setFixedHeight(9 * (self.table.fontMetrics().height() + 6))
        self.job_row = JobRow(
            "gene sets", self.score_button, (self.source_combo, 1), self.score_button
        )
        self.status_label = self.job_row.status_label  # below the table
        fill_column(self, self.job_row, self.table, self.status_label)
        self.source_combo.activated.connect(self._on_source_chosen)
        self.score_button.clicked.connect(self.score)
        self.table.symbol_selected.connect(self.show_set)
        connections.connect(self.refresh, model.comparison_changed)
        self.refresh()

    def refresh(self) -> None:
        """Drop the scores of another comparison."""
        self.job_row.cancel()
        if self._geometry is not None and self._value_maps.geometry is self._geometry:
            self._value_maps.remove()
        self._result = self._geometry = None
        self.table.hide()
        self.setEnabled(self._model.comparison is not None)

    def _on_source_chosen(self, index: int) -> None:
        if self.source_combo.itemText(index) != BROWSE:
            self.score()
            return
        name, _ = QFileDialog.getOpenFileName(self, "Gene sets", "", "Gene sets (*.gmt);;All (*)")
        if name:
            self.open_gmt(Path(name))
        else:
            self.source_combo.setCurrentIndex(0)

    def open_gmt(self, path: Path) -> None:
        """Add the sets of a file and score them."""
        if path.name not in self._files:
            self.source_combo.insertItem(self.source_combo.count() - 1, path.name)
        self._files[path.name] = path
        self.source_combo.setCurrentText(path.name)
        self.score()

    def score(self) -> None:
        """Score the chosen sets on the measured and the predicted values."""
        comparison = self._model.comparison
        path = self._files.get(self.source_combo.currentText())
        if comparison is None:
            return

        def job() -> Iterator[_GeneSetResult]:
            from .....quality.gene_sets import load_hallmark_sets, read_gmt, score_gene_sets
            from .....training.metrics import gene_pcc

            sets = load_hallmark_sets() if path is None else read_gmt(path)
            panel, values = comparison.panel, (comparison.measured, comparison.predicted)
            measured = score_gene_sets(values[0], panel, sets, paired_values=values[1])
            predicted = score_gene_sets(values[1], panel, sets, paired_values=values[0])
            pcc = gene_pcc(predicted.scores, measured.scores)
            yield _GeneSetResult(
                comparison, {s.name: s.title for s in sets}, measured, predicted, pcc
            )

        self.job_row.start(job, self._show_scores, "Scoring ...")

    def _show_scores(self, scored: _GeneSetResult) -> None:
        self._result = scored
        names = scored.measured.names
        n_scored = [len(scored.measured.scored_genes[name]) for name in names]
        columns = (
            make_metric_column(
                "PCC", "Correlation of the measured and the predicted score", scored.pcc
            ),
            make_metric_column(
                "genes", "Genes of the set that are in the panel and measured", n_scored, ".0f"
            ),
        )
        notes = tuple(", ".join(scored.measured.scored_genes[name]) for name in names)
        titles = tuple(scored.titles[name] for name in names)
        self.table.set_table_data(MetricsTableData(titles, columns, notes))
        self.table.setVisible(bool(names))
        skipped = scored.measured.skip_reasons
        self.status_label.setText(_describe_skipped_sets(scored))
        self.status_label.setToolTip(
            "\n".join(f"{scored.titles[n]}: {reason}" for n, reason in skipped.items())
        )

    def show_set(self, title: str) -> None:
        """Show both score maps of a set, on one scale."""
        scored, section = self._result, self._model.section
        if scored is None or section is None or section.slide is None:
            return
        column = [scored.titles[n] for n in scored.measured.names].index(title)
        measured, predicted = (s.scores[:, column] for s in (scored.measured, scored.predicted))
        limits = shared_limits(measured, predicted)
        colormap = self._model.session.settings.colormap
        if self._geometry is None:
            self._geometry = MapGeometry(section.slide, scored.comparison.spots)
        self._value_maps.show(
            self._geometry,
            [
                ValueMap(f"{title} measured score", measured, limits, colormap),
                ValueMap(f"{title} predicted score", predicted, limits, colormap),
            ],
            f"{title}\nmeasured and predicted score: "
            f"r = {format_metric(float(scored.pcc[column]))}",
        )


def _describe_skipped_sets(scored: _GeneSetResult) -> str:
    """Number of sets that are not scored, with the reasons for the first ones."""
    skipped = scored.measured.skip_reasons
    if not skipped:
        return ""
    first = list(skipped.items())[:MAX_SKIPPED_SHOWN]
    reasons = "; ".join(f"{scored.titles[name]}: {reason}" for name, reason in first)
    more = "; ..." if len(skipped) > MAX_SKIPPED_SHOWN else "."
    return f"{len(skipped)} sets are not scored. {reasons}{more}"
