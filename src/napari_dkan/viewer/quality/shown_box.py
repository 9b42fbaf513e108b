"""What becomes of the maps of a gene set, of domains or of two checkpoints once looked at."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget

from ..links import SignalConnections
from .value_maps import ValueMapLayers


class ValueMapsBox(QWidget):
    """Side by side or on the slide, or away; there while such maps are."""

    def __init__(self, value_maps: ValueMapLayers, connections: SignalConnections) -> None:
        super().__init__()
        self._value_maps = value_maps
        self.side_by_side_checkbox = QCheckBox("these maps side by side")
        self.remove_button = QPushButton("Remove them")
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.side_by_side_checkbox, 1)
        line.addWidget(self.remove_button)
        self.side_by_side_checkbox.clicked.connect(value_maps.set_side_by_side)
        self.remove_button.clicked.connect(value_maps.remove)
        connections.connect(self.refresh, value_maps.changed)
        self.refresh()

    def refresh(self) -> None:
        self.setVisible(bool(self._value_maps.layers))
        self.side_by_side_checkbox.setChecked(self._value_maps.is_side_by_side)
