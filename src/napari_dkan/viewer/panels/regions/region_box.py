"""Box to draw regions or to import them from a file."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Labels, Layer, Shapes
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from ....spatial.object_types import RegionObjects
from ...jobs.target_from_layers import add_regions_layer, add_tissue_layer
from ...layers.region_objects import (
    find_free_class,
    is_region_layer,
    list_region_objects,
    prepare_drawing,
    region_layers,
    take_hole,
)
from ...session.shortcut_actions import REGIONS_PANEL, open_panel_dock, set_tooltip
from ...session.viewer_session import ViewerSession
from ...session.viewer_settings import TargetMode
from ...widgets.qt_utils import fill_column, make_row
from ...widgets.signal_connections import SignalConnections
from .region_import import get_region_importer

OBJECT_NAMES = {RegionObjects.tma_core: "cores", RegionObjects.detection: "detections"}
REGION_FILE_FILTER = "Regions (*.geojson *.json *.geojson.gz *.gz *.zip *.png *.tif *.tiff)"


class RegionBox(QWidget):
    """Buttons to draw regions or import them, and the layers of regions."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._region_layers: list[Layer] = []  # drawn or imported here, newest last
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
        self._importer = get_region_importer(session)
        self.object_buttons = {kind: QPushButton(name) for kind, name in OBJECT_NAMES.items()}
        self._objects_row = QWidget()
        fill_column(self._objects_row, make_row(*self.object_buttons.values()))
        for kind, button in self.object_buttons.items():
            button.setToolTip("Take these objects of the file as regions")
            button.clicked.connect(lambda _=False, kind=kind: self._take_objects(kind))
        self.regions_button = QPushButton("Compare...")
        set_tooltip(
            self.regions_button,
            "Classes of regions, their values, and what differs between them ({key})",
            "open_regions",
            connections,
        )
        buttons = make_row(self.draw_button, self.file_button, self.regions_button)
        fill_column(self, buttons, self._objects_row)
        self.regions_button.clicked.connect(lambda: open_panel_dock(session.viewer, REGIONS_PANEL))
        self.draw_button.clicked.connect(self.start_drawing)
        self.file_button.clicked.connect(self._ask_file)
        connections.connect(self._on_imported, self._importer.imported)
        connections.connect(self._show_objects, self._importer.unclear_changed)
        self._show_objects()

    def get_region_layer(self) -> Shapes | Labels | None:
        """Return the selected layer of regions, else the newest one.

        Layers that were drawn or imported here come before other Shapes layers.
        """
        layers = self._session.viewer.layers
        active = layers.selection.active
        if active is not None and (isinstance(active, Labels) or is_region_layer(active)):
            return active
        own = [layer for layer in self._region_layers if layer in layers]
        others = [layer for layer in layers if is_region_layer(layer)]
        return (own or others or [None])[-1]

    def start_drawing(self) -> None:
        """Draw a region of a new class in the layer of regions; one is added if there is none."""
        session = self._session
        layers = session.viewer.layers
        with session.message.report_errors():
            slide, layer = session.require_slide(), self.get_region_layer()
            if layer is None:
                layer = add_regions_layer(session)
                self._region_layers.append(layer)
            if isinstance(layer, Shapes):
                objects = list_region_objects(region_layers(session, slide), slide)
                prepare_drawing(layer, *find_free_class(objects), inside_is_hole=True)
            layers.selection.active = layer
            layer.mode = "paint" if isinstance(layer, Labels) else "add_polygon_lasso"
            session.change_settings(target_mode=TargetMode.REGION)

    @property
    def drawn_class(self) -> str:
        """The class of the region that is being drawn; "" while none is."""
        layer = self.get_region_layer()
        if not isinstance(layer, Shapes) or not str(layer.mode).startswith("add_"):
            return ""
        defaults = layer.feature_defaults
        name = str(defaults["classification"].iloc[0]) if "classification" in defaults else ""
        return name or "a region"

    def finish_drawing(self, layer: Shapes) -> None:
        """Make a hole of a shape that was drawn here inside another one."""
        slide = self._session.slide
        if slide is not None:
            take_hole(layer, slide)

    def add_tissue_outline(self) -> None:
        """Add the outline of the tissue as shapes, which are not regions."""
        with self._session.message.report_errors():
            add_tissue_layer(self._session)

    def import_file(self, path: Path) -> None:
        """Import the regions of a file and make them the target of predictions."""
        self._importer.import_file(path)

    def _show_objects(self) -> None:
        """Offer the types of objects of a file in which it is not clear what the regions are."""
        unclear = self._importer.unclear
        self._objects_row.setVisible(unclear is not None)
        for kind, button in self.object_buttons.items():
            button.setVisible(unclear is not None and kind in unclear[1])
        if unclear is not None:
            self._session.change_settings(target_mode=TargetMode.REGION)  # where the buttons are

    def _take_objects(self, kind: RegionObjects) -> None:
        if self._importer.unclear is not None:
            self._importer.import_file(self._importer.unclear[0], kind)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Regions from a file", "", REGION_FILE_FILTER)
        if path:
            self.import_file(Path(path))

    def _on_imported(self, layer: Shapes) -> None:
        self._region_layers.append(layer)
        self._session.change_settings(target_mode=TargetMode.REGION)
