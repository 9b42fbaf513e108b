"""What the ruler asks for: a line, and how long it is."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import DkanError
from .links import Links
from .ruler import Ruler
from .session import Session

UNITS = {"um": 1.0, "mm": 1000.0}


class RulerBox(QWidget):
    """Shown while the ruler is in use."""

    def __init__(self, session: Session, links: Links, ruler: Ruler) -> None:
        super().__init__()
        self._session, self._ruler = session, ruler
        self.told = QLabel()
        self.told.setWordWrap(True)
        self.entry = QDoubleSpinBox()
        self.entry.setDecimals(3)
        self.entry.setRange(0.0, 1_000_000.0)
        self.entry.setToolTip("How long the line is in truth.")
        self.unit = QComboBox()
        self.unit.addItems(list(UNITS))
        self.apply = QPushButton("Set")
        self.apply.setToolTip("Take the pixel size from the line, and remember it.")
        self.leave = QPushButton("Cancel")
        self.leave.setToolTip("Take the line away and leave the pixel size as it is (Esc).")
        row = QHBoxLayout()
        row.addWidget(self.entry, 1)
        for widget in (self.unit, self.apply, self.leave):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.told)
        layout.addLayout(row)
        self.apply.clicked.connect(self._apply)
        self.leave.clicked.connect(ruler.cancel)
        line = self.entry.lineEdit()
        if line is not None:
            line.returnPressed.connect(self._apply)
        links.join(self.refresh, ruler.changed)
        self.refresh()

    def refresh(self) -> None:
        ruler = self._ruler
        self.setVisible(ruler.busy)
        if not ruler.busy:
            self.entry.setValue(0)
            return
        drawn = ruler.length > 0
        self.apply.setEnabled(drawn)
        self.told.setText(
            f"The line is {ruler.length:,.0f} px{self._now()}. Type its true length; its ends "
            "can be moved."
            if drawn
            else "Draw a line over something whose length you know: a scale bar, the field of a "
            "spot array, the width of the section. The longer, the better."
        )

    def _now(self) -> str:
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return ""
        return f", {self._ruler.wording()} at {slide.mpp:.4g} um/px"

    def _apply(self) -> None:
        try:
            self._ruler.take(self.entry.value() * UNITS[self.unit.currentText()])
        except DkanError as error:
            self._session.say(str(error), alarming=True)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self._ruler.cancel()
        else:
            super().keyPressEvent(event)
