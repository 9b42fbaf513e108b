"""The button that writes the report, and the one that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ..lane import Failure, Lane
from ..links import Links
from ..session import Session
from .state import Quality
from .tile_maps import decoded, slide_of, tile_map


class ReportBox(QWidget):
    """A page about the section that anybody can read without napari."""

    def __init__(self, session: Session, quality: Quality, links: Links) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._lane = Lane("report")
        self.written: Path | None = None
        self.write = QPushButton("Report...")
        self.write.setToolTip(
            "Maps, gene table, checkpoint card and settings as one HTML page: of the measured "
            "section, else of the newest tile map"
        )
        self.open = QPushButton("Open it")
        self.said = QLabel()
        self.said.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.write, 1)
        line.addWidget(self.open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.said)
        self.write.clicked.connect(self._ask)
        self.open.clicked.connect(self.show_it)
        links.join(self.refresh, quality.comparison_changed, session.overlays_changed)
        self.refresh()

    def close_lane(self) -> None:
        self._lane.cancel()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def refresh(self) -> None:
        there = self._quality.comparison is not None
        there = there or tile_map(self._quality) is not None
        self.write.setEnabled(there and not self.busy)
        self.open.setVisible(self.written is not None)
        self.said.setVisible(bool(self.said.text()))

    def _ask(self) -> None:
        slide = slide_of(self._quality)
        if slide is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Write the report", f"{slide.slide.name}-report.html", "Page (*.html)"
        )
        if name:
            self.start(Path(name))

    def start(self, path: Path) -> None:
        """Write the report of what there is now."""
        session, quality = self._session, self._quality
        comparison, slide, tiles = quality.comparison, slide_of(quality), tile_map(quality)
        checkpoint = session.checkpoint
        if slide is None or checkpoint is None or (comparison is None and tiles is None):
            return
        section = quality.section
        placement = None if section is None else section.placement
        notes = [placement.warning] if placement is not None and placement.warning else []
        genes = [g for g in dict.fromkeys((session.gene, *session.pinned)) if g is not None]

        def job() -> Iterator[None]:
            from ...quality.reliability import judge
            from ...quality.report.write import write_report

            if comparison is not None:
                prediction = comparison.prediction
            else:
                assert tiles is not None
                prediction = decoded(tiles)
            trusted = judge(checkpoint.reference, prediction.evidence, prediction.tokens)
            write_report(
                path,
                slide=slide.slide,
                checkpoint=checkpoint,
                prediction=prediction,
                comparison=comparison,
                genes=[g for g in genes if g in prediction.panel],
                reliability=None if checkpoint.reference is None else trusted,
                notes=notes,
            )
            yield None

        def end(failure: Failure | None) -> None:
            self.written = path if failure is None else self.written
            self.said.setText(f"{path.name} is written." if failure is None else failure.sentence)
            self.refresh()

        self.said.setText("Writing the report ...")
        self._lane.start(job, lambda item: None, end)
        self.refresh()

    def show_it(self) -> None:
        """In the person's browser."""
        if self.written is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.written)))
