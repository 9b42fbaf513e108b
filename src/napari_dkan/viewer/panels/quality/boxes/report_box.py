"""Box that writes and opens the HTML report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ....session.viewer_session import ViewerSession
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure, JobRunner
from ..data.tile_map_lookup import decode_all_genes, find_tile_map, get_quality_slide
from ..quality_controller import QualityController


class ReportBox(QWidget):
    """A page about the section that anybody can read without napari."""

    def __init__(
        self, session: ViewerSession, quality: QualityController, connections: SignalConnections
    ) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._runner = JobRunner("report")
        self.report_path: Path | None = None
        self.report_button = QPushButton("Report...")
        self.report_button.setToolTip(
            "Maps, gene table, checkpoint card and settings as one HTML page: of the measured "
            "section, else of the newest tile map"
        )
        self.open_button = QPushButton("Open it")
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.report_button, 1)
        line.addWidget(self.open_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.status_label)
        self.report_button.clicked.connect(self._ask_path)
        self.open_button.clicked.connect(self.open_in_browser)
        connections.connect(self.refresh, quality.comparison_changed, session.overlays_changed)
        self.refresh()

    def stop_jobs(self) -> None:
        self._runner.cancel()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def refresh(self) -> None:
        there = self._quality.comparison is not None
        there = there or find_tile_map(self._quality) is not None
        self.report_button.setEnabled(there and not self.busy)
        self.open_button.setVisible(self.report_path is not None)
        self.status_label.setVisible(bool(self.status_label.text()))

    def _ask_path(self) -> None:
        slide = get_quality_slide(self._quality)
        if slide is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Write the report", f"{slide.slide.name}-report.html", "Page (*.html)"
        )
        if name:
            self.write_report(Path(name))

    def write_report(self, path: Path) -> None:
        """Write the report of what there is now."""
        session, quality = self._session, self._quality
        comparison, slide, tiles = (
            quality.comparison,
            get_quality_slide(quality),
            find_tile_map(quality),
        )
        checkpoint = session.checkpoint
        if slide is None or checkpoint is None or (comparison is None and tiles is None):
            return
        section = quality.section
        placement = None if section is None else section.placement
        notes = [placement.warning] if placement is not None and placement.warning else []
        genes = [g for g in dict.fromkeys((session.gene, *session.pinned)) if g is not None]

        def job() -> Iterator[None]:
            from .....quality.reliability import score_reliability
            from .....quality.report.report_page import write_report

            if comparison is not None:
                prediction = comparison.prediction
            else:
                assert tiles is not None
                prediction = decode_all_genes(tiles)
            trusted = score_reliability(
                checkpoint.reference, prediction.qc_features, prediction.tokens
            )
            write_report(
                path,
                slide=slide.slide,
                checkpoint=checkpoint,
                prediction=prediction,
                comparison=comparison,
                genes=[g for g in genes if g in prediction.panel],
                reliability=None if checkpoint.reference is None else trusted,
                warnings=notes,
            )
            yield None

        def end(failure: JobFailure | None) -> None:
            self.report_path = path if failure is None else self.report_path
            self.status_label.setText(
                f"{path.name} is written." if failure is None else failure.message
            )
            self.refresh()

        self.status_label.setText("Writing the report ...")
        self._runner.start(job, lambda item: None, end)
        self.refresh()

    def open_in_browser(self) -> None:
        """In the person's browser."""
        if self.report_path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.report_path)))
