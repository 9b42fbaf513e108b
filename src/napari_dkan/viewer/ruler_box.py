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
from .links import SignalConnections
from .ruler import Ruler
from .session import ViewerSession

LENGTH_UNITS = {"um": 1.0, "mm": 1000.0}


class RulerBox(QWidget):
    """Shown while the ruler is in use."""

    def __init__(self, session: ViewerSession, connections: SignalConnections, ruler: Ruler) -> None:
        super().__init__()
        self._session, self._ruler = session, ruler
        self.instruction_label = QLabel()
        self.instruction_label.setWordWrap(True)
        self.length_field = QDoubleSpinBox()
        self.length_field.setDecimals(3)
        self.length_field.setRange(0.0, 1_000_000.0)
        self.length_field.setToolTip("How long the line is in truth.")
        self.unit_combo = QComboBox()
        self.unit_combo.addItems(list(LENGTH_UNITS))
        self.apply_button = QPushButton("Set")
        self.apply_button.setToolTip("Take the pixel size from the line, and remember it.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Take the line away and leave the pixel size as it is (Esc).")
        row = QHBoxLayout()
        row.addWidget(self.length_field, 1)
        for widget in (self.unit_combo, self.apply_button, self.cancel_button):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.instruction_label)
        layout.addLayout(row)
        self.apply_button.clicked.connect(self._apply_length)
        self.cancel_button.clicked.connect(ruler.cancel)
        line = self.length_field.lineEdit()
        if line is not None:
            line.returnPressed.connect(self._apply_length)
        connections.connect(self.refresh, ruler.changed)
        self.refresh()

    def refresh(self) -> None:
        ruler = self._ruler
        self.setVisible(ruler.busy)
        if not ruler.busy:
            self.length_field.setValue(0)
            return
        drawn = ruler.length_px > 0
        self.apply_button.setEnabled(drawn)
        self.instruction_label.setText(
            f"The line is {ruler.length_px:,.0f} px{self._format_current_length()}. Type its true length; its ends "
            "can be moved."
            if drawn
            else "Draw a line over something whose length you know: a scale bar, the field of a "
            "spot array, the width of the section. The longer, the better."
        )

    def _format_current_length(self) -> str:
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return ""
        return f", {self._ruler.format_length()} at {slide.mpp:.4g} um/px"

    def _apply_length(self) -> None:
        try:
            self._ruler.set_length(self.length_field.value() * LENGTH_UNITS[self.unit_combo.currentText()])
        except DkanError as error:
            self._session.show_message(str(error), warning=True)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self._ruler.cancel()
        else:
            super().keyPressEvent(event)
