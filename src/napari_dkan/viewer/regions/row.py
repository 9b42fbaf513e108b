"""Which layer holds the regions: drawn here, brought from a file, or painted as labels."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Labels, Layer, Shapes
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from ...errors import DkanError
from ..actions import tip
from ..links import Links
from ..places import add_regions_layer, add_tissue_layer
from ..ruler import is_ruler
from ..session import Session, Where
from .bringing import bringing_of

FILES = "Regions (*.geojson *.json *.geojson.gz *.gz *.zip *.png *.tif *.tiff)"


class RegionRow(QWidget):
    """Draw, or take regions from a file; and the layers that regions lie in."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self._mine: list[Layer] = []  # drawn here or brought here, newest last
        self._tissue: list[Shapes] = []
        self.draw = QPushButton("Draw")
        tip(
            self.draw,
            "Draw on the slide ({key}); a shape inside another one is a hole.",
            "draw_region",
            links,
        )
        self.file = QPushButton("From file...")
        self.file.setToolTip(
            "Regions drawn in QuPath (GeoJSON), or a mask of the whole slide (PNG or TIFF, at any "
            "resolution). GeoJSON can also be dropped on the window."
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.draw)
        layout.addWidget(self.file)
        self.draw.clicked.connect(self.begin)
        self.file.clicked.connect(self._ask)
        links.join(self._take, bringing_of(session).brought)

    def layer(self) -> Shapes | Labels | None:
        """The selected layer of regions, else the newest that was drawn or brought here."""
        layers = self._session.viewer.layers
        active, rulers = layers.selection.active, [s for s in layers if is_ruler(s)]
        if isinstance(active, Shapes | Labels) and active not in [*self._tissue, *rulers]:
            return active
        mine = [r for r in self._mine if r in layers]
        others = [s for s in layers if isinstance(s, Shapes) and s not in [*self._tissue, *rulers]]
        return (mine or others or [None])[-1]

    def begin(self) -> None:
        """Go on drawing in the regions layer, or begin one."""
        layers = self._session.viewer.layers
        try:
            layer = self.layer()
            if layer is None:
                layer = add_regions_layer(self._session)
                self._mine.append(layer)
            layers.selection.active = layer
            layer.mode = "paint" if isinstance(layer, Labels) else "add_polygon_lasso"
        except DkanError as error:
            self._session.say(str(error), alarming=True)
            return
        self._session.change(where=Where.REGION)

    def edit_tissue(self) -> None:
        """The tissue's outline as shapes; they are no regions."""
        try:
            self._tissue.append(add_tissue_layer(self._session))
        except DkanError as error:
            self._session.say(str(error), alarming=True)

    def bring(self, path: Path) -> None:
        """Take the regions of a file; predicting goes there next."""
        bringing_of(self._session).bring(path)

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Regions from a file", "", FILES)
        if path:
            self.bring(Path(path))

    def _take(self, layer: Shapes) -> None:
        self._mine.append(layer)
        self._session.change(where=Where.REGION)
