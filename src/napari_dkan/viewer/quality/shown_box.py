"""What becomes of the maps of a gene set, of domains or of two checkpoints once looked at."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget

from ..links import Links
from .value_maps import ValueMaps


class ShownBox(QWidget):
    """Side by side or on the slide, or away; there while such maps are."""

    def __init__(self, maps: ValueMaps, links: Links) -> None:
        super().__init__()
        self._maps = maps
        self.side_by_side = QCheckBox("these maps side by side")
        self.remove = QPushButton("Remove them")
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.side_by_side, 1)
        line.addWidget(self.remove)
        self.side_by_side.clicked.connect(maps.lay_out)
        self.remove.clicked.connect(maps.remove)
        links.join(self.refresh, maps.changed)
        self.refresh()

    def refresh(self) -> None:
        self.setVisible(bool(self._maps.layers))
        self.side_by_side.setChecked(self._maps.side_by_side)
