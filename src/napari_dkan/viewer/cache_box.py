"""What is kept on disk of slides seen before: how much, whether at all, and its removal."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ..inference.store.folders import get_cache_folder, compute_cache_size, clear_cache
from ..inference.store.limit import get_cache_limit
from ..inference.store.words import format_size
from .lane import JobFailure, JobRunner
from .links import SignalConnections
from .session import ViewerSession

CACHE_REFRESH_MS = 5_000  # between two looks at the disk while the box is in sight


class CacheBox(QWidget):
    """Size of the cache, a button that clears it, and whether tiles go there.

    The disk is only looked at while the box is shown, and never in the GUI thread.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._runner = JobRunner("cache")
        self.size_label = QLabel("Cache")
        self.size_label.setWordWrap(True)
        self.clear_button = QPushButton("Clear")
        self.clear_button.setToolTip("Delete what is kept of all slides; it is computed anew when needed.")
        self.store_checkbox = QCheckBox("Store tiles on disk")
        self.store_checkbox.setToolTip("Makes the second visit to a slide much faster.")
        self._timer = QTimer(self)
        self._timer.setInterval(CACHE_REFRESH_MS)

        line = QHBoxLayout()
        line.addWidget(self.size_label, 1)
        line.addWidget(self.clear_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.store_checkbox)

        self.clear_button.clicked.connect(self._start_clearing)
        self.store_checkbox.toggled.connect(self._set_store_tiles)
        self._timer.timeout.connect(self.refresh_size)
        connections.connect(self._refresh_store_tiles, session.settings_changed)
        self._refresh_store_tiles()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def stop_jobs(self) -> None:
        self._timer.stop()
        self._runner.cancel()

    def refresh_size(self) -> None:
        """Ask the disk, and show its answer when it comes."""
        if not self._runner.busy:
            self._runner.start(_measure_cache_size, self.size_label.setText, self._on_job_end)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.size_label.setToolTip(str(get_cache_folder()))
        self.refresh_size()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _start_clearing(self) -> None:
        self.clear_button.setEnabled(False)
        self._runner.start(_clear_and_measure, self.size_label.setText, self._on_job_end)

    def _on_job_end(self, failure: JobFailure | None) -> None:
        self.clear_button.setEnabled(True)
        if failure is not None:
            self.size_label.setText(failure.message)

    def _set_store_tiles(self, enabled: bool) -> None:
        if enabled != self._session.settings.store:
            self._session.change_settings(store=enabled)

    def _refresh_store_tiles(self) -> None:
        self.store_checkbox.setChecked(self._session.settings.store)


def _measure_cache_size() -> Iterator[str]:
    yield f"Cache: {format_size(compute_cache_size())} of {format_size(get_cache_limit())}"


def _clear_and_measure() -> Iterator[str]:
    clear_cache()
    yield from _measure_cache_size()
