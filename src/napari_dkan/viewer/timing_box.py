"""Where the time goes: the stages of the predictor, to look at and to paste into a report."""

from __future__ import annotations

import platform

from qtpy.QtCore import QTimer
from qtpy.QtGui import QFontDatabase, QHideEvent, QShowEvent
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .. import __version__
from .folded import folded
from .session import Session

EVERY_MS = 500


class TimingBox(QWidget):
    """Seconds of every stage since the predictor was made or Reset was pressed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.table = QLabel()
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSize(8)
        self.table.setFont(font)
        self.copy, self.reset = QPushButton("Copy"), QPushButton("Reset")
        self.copy.setToolTip("Copy the table with version and machine, for a bug report.")
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy)
        buttons.addWidget(self.reset)
        layout.addLayout(buttons)
        fold = folded("Where the time goes", inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(fold)
        self.copy.clicked.connect(self._copy)
        self.reset.clicked.connect(self._reset)
        self._timer.timeout.connect(self.refresh)
        fold.toggled.connect(self._toggled)

    def text(self) -> str:
        """What Copy copies: the tables with version, machine and device."""
        predictor = self._session.predictor_now()
        where = "no predictor yet" if predictor is None else str(predictor.device)
        about = f"napari-dkan {__version__}, {platform.platform()}, {where}"
        note = "" if predictor is None else predictor.kept.note
        return "\n".join(t for t in (about, self.tables(), note) if t)

    def tables(self) -> str:
        predictor, drawing = self._session.predictor_now(), self._session.drawing
        return "\n".join(
            [*([] if predictor is None else [predictor.stages.report()]), drawing.report()]
        )

    def refresh(self) -> None:
        if self.table.isVisible():
            self.table.setText(self.tables())

    def stop(self) -> None:
        """Look no more: the panel is going."""
        self._timer.stop()

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()
        super().hideEvent(event)

    def _toggled(self, opened: bool) -> None:
        if opened:
            self.table.setText(self.tables())

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.text())

    def _reset(self) -> None:
        predictor = self._session.predictor_now()
        if predictor is not None:
            predictor.stages.reset()
        self._session.drawing.reset()
        self.table.setText(self.tables())
