"""Notice of a slide that another reader opened, with a button that opens it as a pyramid."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QWidget

from ...session.foreign_slides import ForeignSlide, find_foreign_slides
from ...session.viewer_session import ViewerSession
from ...widgets.qt_utils import fill_column, make_text_label
from ...widgets.signal_connections import SignalConnections


class ReopenBox(QWidget):
    """Shown while a slide is open through napari's own reader, for example."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._foreign: ForeignSlide | None = None
        self.notice_label = make_text_label()
        self.reopen_button = QPushButton("Reopen as a pyramid")
        self.reopen_button.setToolTip(
            "Reads only what is in view, with the pixel size of the file; the view stays as it is."
        )
        fill_column(self, self.notice_label, self.reopen_button)
        self.reopen_button.clicked.connect(self.reopen)
        layers = session.viewer.layers
        connections.connect(self.refresh, layers.events.inserted, layers.events.removed)
        connections.connect(self.refresh, session.slides_changed, session.slide_changed)
        self.refresh()

    def refresh(self, event: object = None) -> None:
        """Look for such a slide: the current one before others."""
        found = find_foreign_slides(self._session.viewer.layers)
        current = self._session.slide
        found.sort(key=lambda f: current is None or current.layer not in f.layers)
        self._foreign = found[0] if found else None
        self.setVisible(self._foreign is not None)
        if self._foreign is not None:
            self.notice_label.setText(
                f"{self._foreign.slide.label} was opened by another reader, as one image in memory."
            )

    def reopen(self) -> None:
        """Open that slide as a pyramid, in the same place."""
        if self._foreign is not None:
            with self._session.message.report_errors():
                self._session.viewer_slides.reopen(self._foreign)
