"""What is kept on disk of slides seen before: how much, whether at all, and its removal."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ..inference.store.folders import cache_folder, cache_size, clear_cache
from ..inference.store.limit import cache_limit
from ..inference.store.words import size_words
from .lane import Failure, Lane
from .links import Links
from .session import Session

EVERY_MS = 5_000  # between two looks at the disk while the box is in sight


class CacheBox(QWidget):
    """Size of the cache, a button that clears it, and whether tiles go there.

    The disk is only looked at while the box is shown, and never in the GUI thread.
    """

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self._lane = Lane("cache")
        self.used = QLabel("Cache")
        self.used.setWordWrap(True)
        self.clear = QPushButton("Clear")
        self.clear.setToolTip("Delete what is kept of all slides; it is computed anew when needed.")
        self.store_tiles = QCheckBox("Store tiles on disk")
        self.store_tiles.setToolTip("Makes the second visit to a slide much faster.")
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)

        line = QHBoxLayout()
        line.addWidget(self.used, 1)
        line.addWidget(self.clear)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.store_tiles)

        self.clear.clicked.connect(self._clear)
        self.store_tiles.toggled.connect(self._choose)
        self._timer.timeout.connect(self.measure)
        links.join(self._show_choice, session.settings_changed)
        self._show_choice()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close_lane(self) -> None:
        self._timer.stop()
        self._lane.cancel()

    def measure(self) -> None:
        """Ask the disk, and show its answer when it comes."""
        if not self._lane.busy:
            self._lane.start(_measured, self.used.setText, self._end)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.used.setToolTip(str(cache_folder()))
        self.measure()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _clear(self) -> None:
        self.clear.setEnabled(False)
        self._lane.start(_cleared, self.used.setText, self._end)

    def _end(self, failure: Failure | None) -> None:
        self.clear.setEnabled(True)
        if failure is not None:
            self.used.setText(failure.sentence)

    def _choose(self, wanted: bool) -> None:
        if wanted != self._session.settings.store:
            self._session.change(store=wanted)

    def _show_choice(self) -> None:
        self.store_tiles.setChecked(self._session.settings.store)


def _measured() -> Iterator[str]:
    yield f"Cache: {size_words(cache_size())} of {size_words(cache_limit())}"


def _cleared() -> Iterator[str]:
    clear_cache()
    yield from _measured()
