"""The control of the gene lens: on or off, and how large."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSlider, QWidget

from .actions import set_tooltip
from .lens import MAX_RADIUS_UM, MIN_RADIUS_UM, GeneLens
from .links import SignalConnections

RADIUS_STEP_UM = 50


class LensBox(QWidget):
    def __init__(self, lens: GeneLens, connections: SignalConnections) -> None:
        super().__init__()
        self._lens = lens
        self.toggle_button = QPushButton("Lens")
        self.toggle_button.setCheckable(True)
        set_tooltip(
            self.toggle_button,
            "Follow the cursor over the slide with a circle that shows this gene's map ({key})\n"
            "Shift and the wheel change its size",
            "lens",
            connections,
        )
        self.radius_slider = QSlider(Qt.Orientation.Horizontal)
        self.radius_slider.setRange(round(MIN_RADIUS_UM / RADIUS_STEP_UM), round(MAX_RADIUS_UM / RADIUS_STEP_UM))
        self.radius_slider.setToolTip("Radius of the lens")
        self.radius_label = QLabel()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.toggle_button)
        layout.addWidget(self.radius_slider, 1)
        layout.addWidget(self.radius_label)
        self.toggle_button.clicked.connect(lens.set_active)
        self.radius_slider.valueChanged.connect(lambda steps: lens.resize(steps * RADIUS_STEP_UM))
        connections.connect(self.refresh, lens.changed)
        self.refresh()

    def refresh(self) -> None:
        lens = self._lens
        self.toggle_button.setChecked(lens.active)
        self.radius_slider.blockSignals(True)
        self.radius_slider.setValue(round(lens.radius_um / RADIUS_STEP_UM))
        self.radius_slider.blockSignals(False)
        self.radius_slider.setEnabled(lens.active)
        self.radius_label.setText(f"{lens.radius_um / 1000:.1f} mm")
