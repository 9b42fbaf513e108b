"""Where the time goes: the stages of the predictor, to look at and to paste into a report."""

from __future__ import annotations

import platform

from qtpy.QtCore import QTimer
from qtpy.QtGui import QFontDatabase, QHideEvent, QShowEvent
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .. import __version__
from .folded import make_collapsible
from .session import ViewerSession

TIMING_REFRESH_MS = 500


class TimingBox(QWidget):
    """Seconds of every stage since the predictor was made or Reset was pressed."""

    def __init__(self, session: ViewerSession) -> None:
        super().__init__()
        self._session = session
        self.table_label = QLabel()
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSize(8)
        self.table_label.setFont(font)
        self.copy_button, self.reset_button = QPushButton("Copy"), QPushButton("Reset")
        self.copy_button.setToolTip("Copy the table with version and machine, for a bug report.")
        self._timer = QTimer(self)
        self._timer.setInterval(TIMING_REFRESH_MS)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table_label)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.reset_button)
        layout.addLayout(buttons)
        fold = make_collapsible("Where the time goes", inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(fold)
        self.copy_button.clicked.connect(self._copy_report)
        self.reset_button.clicked.connect(self._reset_stages)
        self._timer.timeout.connect(self.refresh)
        fold.toggled.connect(self._on_toggled)

    def report_text(self) -> str:
        """What Copy copies: the tables with version, machine and device."""
        predictor = self._session.current_predictor()
        where = "no predictor yet" if predictor is None else str(predictor.device)
        about = f"napari-dkan {__version__}, {platform.platform()}, {where}"
        note = "" if predictor is None else predictor.token_cache.note
        return "\n".join(t for t in (about, self.stage_tables(), note) if t)

    def stage_tables(self) -> str:
        predictor, drawing = self._session.current_predictor(), self._session.draw_stages
        return "\n".join(
            [*([] if predictor is None else [predictor.stage_timer.format_report()]), drawing.format_report()]
        )

    def refresh(self) -> None:
        if self.table_label.isVisible():
            self.table_label.setText(self.stage_tables())

    def stop(self) -> None:
        """Look no more: the panel is going."""
        self._timer.stop()

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()
        super().hideEvent(event)

    def _on_toggled(self, opened: bool) -> None:
        if opened:
            self.table_label.setText(self.stage_tables())

    def _copy_report(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.report_text())

    def _reset_stages(self) -> None:
        predictor = self._session.current_predictor()
        if predictor is not None:
            predictor.stage_timer.reset()
        self._session.draw_stages.reset()
        self.table_label.setText(self.stage_tables())
