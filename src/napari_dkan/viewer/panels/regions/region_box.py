"""Box to draw regions or to import them from a file."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Labels, Layer, Shapes
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from ....errors import DkanError
from ...jobs.target_from_layers import add_regions_layer, add_tissue_layer
from ...session.shortcut_actions import set_tooltip
from ...session.viewer_session import ViewerSession
from ...session.viewer_settings import TargetMode
from ...tools.ruler import is_ruler
from ...widgets.signal_connections import SignalConnections
from .region_import import get_region_importer

REGION_FILE_FILTER = "Regions (*.geojson *.json *.geojson.gz *.gz *.zip *.png *.tif *.tiff)"


class RegionBox(QWidget):
    """Draw, or take regions from a file; and the layers that regions lie in."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._region_layers: list[Layer] = []  # drawn here or brought here, newest last
        self._tissue_layers: list[Shapes] = []
        self.draw_button = QPushButton("Draw")
        set_tooltip(
            self.draw_button,
            "Draw on the slide ({key}); a shape inside another one is a hole.",
            "draw_region",
            connections,
        )
        self.file_button = QPushButton("From file...")
        self.file_button.setToolTip(
            "Regions drawn in QuPath (GeoJSON), or a mask of the whole slide (PNG or TIFF, at any "
            "resolution). GeoJSON can also be dropped on the window."
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.draw_button)
        layout.addWidget(self.file_button)
        self.draw_button.clicked.connect(self.start_drawing)
        self.file_button.clicked.connect(self._ask_file)
        connections.connect(self._on_imported, get_region_importer(session).imported)

    def get_region_layer(self) -> Shapes | Labels | None:
        """The selected layer of regions, else the newest that was drawn or brought here."""
        layers = self._session.viewer.layers
        active, rulers = layers.selection.active, [s for s in layers if is_ruler(s)]
        if isinstance(active, Shapes | Labels) and active not in [*self._tissue_layers, *rulers]:
            return active
        mine = [r for r in self._region_layers if r in layers]
        others = [
            s for s in layers if isinstance(s, Shapes) and s not in [*self._tissue_layers, *rulers]
        ]
        return (mine or others or [None])[-1]

    def start_drawing(self) -> None:
        """Go on drawing in the regions layer, or begin one."""
        layers = self._session.viewer.layers
        try:
            layer = self.get_region_layer()
            if layer is None:
                layer = add_regions_layer(self._session)
                self._region_layers.append(layer)
            layers.selection.active = layer
            layer.mode = "paint" if isinstance(layer, Labels) else "add_polygon_lasso"
        except DkanError as error:
            self._session.message.show(str(error), warning=True)
            return
        self._session.change_settings(target_mode=TargetMode.REGION)

    def add_tissue_outline(self) -> None:
        """The tissue's outline as shapes; they are no regions."""
        try:
            self._tissue_layers.append(add_tissue_layer(self._session))
        except DkanError as error:
            self._session.message.show(str(error), warning=True)

    def import_file(self, path: Path) -> None:
        """Take the regions of a file; predicting goes there next."""
        get_region_importer(self._session).import_file(path)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Regions from a file", "", REGION_FILE_FILTER)
        if path:
            self.import_file(Path(path))

    def _on_imported(self, layer: Shapes) -> None:
        self._region_layers.append(layer)
        self._session.change_settings(target_mode=TargetMode.REGION)
