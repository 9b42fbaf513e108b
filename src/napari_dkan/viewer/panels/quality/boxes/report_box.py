"""Box that writes and opens the HTML report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from ....layers.overlay_lookup import decode_all_genes
from ....widgets.job_row import JobRow
from ....widgets.qt_utils import fill_column
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure
from ..data.quality_model import QualityModel


class ReportBox(QWidget):
    """Writes a page about the section, or else the tile map, that needs no napari."""

    def __init__(self, model: QualityModel, connections: SignalConnections) -> None:
        super().__init__()
        self._model = model
        self.report_path: Path | None = None
        self.report_button = QPushButton("Report...")
        self.report_button.setToolTip(
            "Maps, gene table, checkpoint card and settings as one HTML page: of the measured "
            "section, else of the newest tile map"
        )
        self.open_button = QPushButton("Open it")
        self.job_row = JobRow(
            "report", self.report_button, (self.report_button, 1), self.open_button
        )
        fill_column(self, self.job_row)
        self.report_button.clicked.connect(self._ask_path)
        self.open_button.clicked.connect(self.open_in_browser)
        connections.connect(self.refresh, model.comparison_changed, model.session.overlays_changed)
        self.refresh()

    def refresh(self) -> None:
        has_content = self._model.comparison is not None or self._model.tile_map is not None
        self.report_button.setEnabled(has_content and not self.job_row.busy)
        self.open_button.setVisible(self.report_path is not None)

    def _ask_path(self) -> None:
        slide = self._model.slide
        if slide is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Write the report", f"{slide.slide.name}-report.html", "Page (*.html)"
        )
        if name:
            self.write_report(Path(name))

    def write_report(self, path: Path) -> None:
        """Write the report of the current section or tile map."""
        model, session = self._model, self._model.session
        comparison, section, checkpoint = model.comparison, model.section, session.checkpoint
        slide, tile_map = model.slide, model.tile_map
        if slide is None or checkpoint is None or (comparison is None and tile_map is None):
            return
        placement = None if section is None else section.placement
        notes = [placement.warning] if placement is not None and placement.warning else []
        colormap = session.settings.colormap
        genes = [g for g in dict.fromkeys((session.gene, *session.pinned)) if g is not None]

        def job() -> Iterator[None]:
            from .....quality.reliability import score_reliability
            from .....quality.report.report_page import write_report

            if comparison is not None:
                prediction = comparison.prediction
            else:
                assert tile_map is not None
                prediction = decode_all_genes(tile_map)
            reliability = score_reliability(
                checkpoint.reference, prediction.qc_features, prediction.tokens
            )
            write_report(
                path,
                slide=slide.slide,
                checkpoint=checkpoint,
                prediction=prediction,
                comparison=comparison,
                genes=[g for g in genes if g in prediction.panel],
                reliability=None if checkpoint.reference is None else reliability,
                warnings=notes,
                colormap=colormap,
            )
            yield None

        def end(failure: JobFailure | None) -> None:
            if failure is None:
                self.report_path = path
                self.job_row.status_label.setText(f"{path.name} is written.")
            self.refresh()

        self.job_row.start(job, lambda item: None, "Writing the report ...", end)
        self.refresh()

    def open_in_browser(self) -> None:
        """Open the report in the default browser."""
        if self.report_path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.report_path)))
