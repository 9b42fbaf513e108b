"""Layers of labels at spots and tiles, and rings around the spots of a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Points
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from ...spatial.coordinates import swap_xy
from ...spatial.spots import Spots
from ...spatial.tile_grid import TileGrid
from ..session.slide_layer import (
    AXIS_LABELS,
    METADATA_PREFIX,
    MICROMETER_UNITS,
    ViewerSlide,
    slide_to_world,
)
from ..session.viewer_session import ViewerSession
from .value_layers import DEFAULT_DIAMETER_UM, grid_transform, make_spots_layer

if TYPE_CHECKING:
    from ...quality.error_regions import ErrorRegion


DOMAIN_OPACITY = 0.8
MIN_DIAMETER_PER_PITCH = 0.75
DISC_PIXELS = 15  # pixels across a spot's disc
# Eight colours that are distinguishable with every kind of colour blindness (Okabe and Ito 2008),
# with grey instead of black, which is not seen on a dark canvas; and four for more domains.
OKABE_ITO = "#e69f00 #0072b2 #009e73 #f0e442 #d55e00 #56b4e9 #cc79a7 #606060"
DOMAIN_COLORS = (OKABE_ITO + " #d4d4d4 #7f3b08 #b8e186 #542788").split()


def make_tile_labels(grid: TileGrid, labels: NDArray[np.integer], mpp: float, name: str) -> Labels:
    """Make a Labels layer of tile labels (T,), one pixel per tile."""
    image = np.zeros(grid.shape, np.uint16)
    column, row = (grid.cells - grid.first_cell).T
    image[row, column] = labels
    transform = grid_transform(grid, mpp)
    return _make_labels_layer(image, name, transform["scale"][0], transform["translate"])


def make_spot_labels(spots: Spots, labels: NDArray[np.integer], mpp: float, name: str) -> Labels:
    """Make a Labels layer of spot labels (N,).

    Discs have the spots' diameter, but at least 0.75 of their pitch to be visible.
    """
    diameter = max(
        spots.diameter_um or DEFAULT_DIAMETER_UM,
        MIN_DIAMETER_PER_PITCH * (spots.pitch_um or 0.0),
    )
    step = diameter / DISC_PIXELS
    centres = swap_xy(spots.xy) * mpp
    corner = centres.min(axis=0) - diameter
    height, width = np.ceil((centres.max(axis=0) - corner + diameter) / step).astype(int)
    image = np.zeros((height, width), np.uint16)
    offsets = np.arange(-(DISC_PIXELS // 2), DISC_PIXELS // 2 + 1)
    dy, dx = np.nonzero(np.hypot(*np.meshgrid(offsets, offsets)) <= DISC_PIXELS / 2)
    pixel = np.round((centres - corner) / step).astype(int)
    image[pixel[:, :1] + offsets[dy], pixel[:, 1:] + offsets[dx]] = np.asarray(labels)[:, None]
    return _make_labels_layer(image, name, step, corner)


def color_domains(layer: Labels, names: Sequence[str], colors: Sequence[str]) -> None:
    """Set names and colours of the domains (D,) of a layer; napari shows the name at the cursor."""
    numbered: dict[int | None, str] = dict(enumerate(colors, 1))
    layer.colormap = DirectLabelColormap(
        color_dict={None: "transparent", 0: "transparent", **numbered}
    )
    layer.features = {"index": list(range(len(names) + 1)), "domain": ["", *names]}


def domain_color(number: int) -> str:
    """Return the colour of a domain, from 1, unless the user chooses another one."""
    return DOMAIN_COLORS[(number - 1) % len(DOMAIN_COLORS)]


def _make_labels_layer(
    image: NDArray[np.uint16], name: str, step: float, corner: NDArray[np.float64]
) -> Labels:
    layer = Labels(
        image,
        name=name,
        scale=(step, step),
        translate=corner,
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        opacity=DOMAIN_OPACITY,
    )
    layer.editable = False
    return layer


OUTLINE_LAYER_NAME = "worst region"
OUTLINE_PER_DIAMETER = 1.15
CANVAS_FILL = 0.3  # fraction of the canvas that the region fills


class RegionOutline:
    """Rings the spots of one region on the slide, in one layer."""

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self.layer: Points | None = None

    def show(self, region: ErrorRegion, spots: Spots, slide: ViewerSlide) -> None:
        """Ring the spots of a region (level-0 px) and move the camera there."""
        diameter = OUTLINE_PER_DIAMETER * (spots.diameter_um or DEFAULT_DIAMETER_UM)
        self.remove()
        self.layer = make_spots_layer(
            spots.xy[list(region.spot_rows)],
            slide.mpp,
            OUTLINE_LAYER_NAME,
            diameter,
            face_color="transparent",
            border_color="#ff8a65",
            border_width=0.12,
            metadata={METADATA_PREFIX: OUTLINE_LAYER_NAME},
        )
        self._session.layers.insert(self.layer, slide)
        self._center_camera(region, slide)

    def remove(self) -> None:
        self._session.layers.remove(self.layer)
        self.layer = None

    def _center_camera(self, region: ErrorRegion, slide: ViewerSlide) -> None:
        viewer = self._session.viewer
        ((x, y),) = slide_to_world(np.array([[region.x, region.y]], float), slide)
        viewer.scene.camera.center = (0, float(y), float(x))
        radius_um = max(region.radius * slide.mpp, 1.0) / CANVAS_FILL
        viewer.scene.camera.zoom = min(viewer.canvas.size) / (2 * radius_um)
