"""The control of the gene lens: on or off, and how large."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSlider, QWidget

from .actions import tip
from .lens import LARGEST_UM, SMALLEST_UM, Lens
from .links import Links

STEP_UM = 50


class LensBox(QWidget):
    def __init__(self, lens: Lens, links: Links) -> None:
        super().__init__()
        self._lens = lens
        self.button = QPushButton("Lens")
        self.button.setCheckable(True)
        tip(
            self.button,
            "Follow the cursor over the slide with a circle that shows this gene's map ({key})\n"
            "Shift and the wheel change its size",
            "lens",
            links,
        )
        self.radius = QSlider(Qt.Orientation.Horizontal)
        self.radius.setRange(round(SMALLEST_UM / STEP_UM), round(LARGEST_UM / STEP_UM))
        self.radius.setToolTip("Radius of the lens")
        self.length = QLabel()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.radius, 1)
        layout.addWidget(self.length)
        self.button.clicked.connect(lens.switch)
        self.radius.valueChanged.connect(lambda steps: lens.resize(steps * STEP_UM))
        links.join(self.refresh, lens.changed)
        self.refresh()

    def refresh(self) -> None:
        lens = self._lens
        self.button.setChecked(lens.on)
        self.radius.blockSignals(True)
        self.radius.setValue(round(lens.radius_um / STEP_UM))
        self.radius.blockSignals(False)
        self.radius.setEnabled(lens.on)
        self.length.setText(f"{lens.radius_um / 1000:.1f} mm")
