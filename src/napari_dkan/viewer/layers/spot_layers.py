"""Labels layers of spatial domains, and the outline of a region of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Points
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from ...spatial.coordinates import swap_xy
from ...spatial.spots import Spots
from ...spatial.tile_grid import TileGrid
from ..session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide
from ..session.viewer_session import ViewerSession
from .value_layers import DEFAULT_DIAMETER_UM, grid_transform

if TYPE_CHECKING:
    from ...quality.comparison import ErrorRegion


DOMAIN_OPACITY = 0.8
MIN_DIAMETER_PER_PITCH = 0.75
DISC_PIXELS = 15  # diameter of a spot's disc
# Eight colours that people with every kind of colour blindness can distinguish (Okabe and Ito,
# 2008), and four more.
OKABE_ITO = "#e69f00 #0072b2 #009e73 #f0e442 #d55e00 #56b4e9 #cc79a7 #000000"
DOMAIN_COLORS = (OKABE_ITO + " #ffffff #7f3b08 #b8e186 #542788").split()


def make_tile_labels(grid: TileGrid, labels: NDArray[np.integer], mpp: float, name: str) -> Labels:
    """Return a Labels layer of labels (T,) with one pixel per tile."""
    image = np.zeros(grid.shape, np.uint16)
    column, row = (grid.cells - grid.first_cell).T
    image[row, column] = labels
    transform = grid_transform(grid, mpp)
    return _make_labels_layer(image, name, transform["scale"][0], transform["translate"])


def make_spot_labels(spots: Spots, labels: NDArray[np.integer], mpp: float, name: str) -> Labels:
    """Return a Labels layer of labels (N,) as discs of the spots' diameter, or wider if small."""
    diameter = max(
        spots.diameter_um or DEFAULT_DIAMETER_UM, MIN_DIAMETER_PER_PITCH * (spots.pitch_um or 0.0)
    )
    step = diameter / DISC_PIXELS
    centres = swap_xy(spots.xy) * mpp
    corner = centres.min(axis=0) - diameter
    height, width = np.ceil((centres.max(axis=0) - corner + diameter) / step).astype(int)
    image = np.zeros((height, width), np.uint16)
    offsets = np.arange(-(DISC_PIXELS // 2), DISC_PIXELS // 2 + 1)
    dy, dx = np.nonzero(np.hypot(*np.meshgrid(offsets, offsets)) <= DISC_PIXELS / 2)
    pixels = np.round((centres - corner) / step).astype(int)
    image[pixels[:, :1] + offsets[dy], pixels[:, 1:] + offsets[dx]] = np.asarray(labels)[:, None]
    return _make_labels_layer(image, name, step, corner)


def _domain_colormap(count: int) -> DirectLabelColormap:
    colors: dict[int | None, str] = {
        n: DOMAIN_COLORS[(n - 1) % len(DOMAIN_COLORS)] for n in range(1, count + 1)
    }
    return DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **colors})


def _make_labels_layer(
    image: NDArray[np.uint16], name: str, step: float, corner: NDArray[np.floating]
) -> Labels:
    layer = Labels(
        image,
        name=name,
        scale=(step, step),
        translate=corner,
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        opacity=DOMAIN_OPACITY,
        colormap=_domain_colormap(int(image.max())),
    )
    layer.editable = False
    return layer


OUTLINE_LAYER_NAME = "worst region"
CANVAS_FILL = 0.3  # fraction of the canvas that the region fills


class RegionOutline:
    """Outlines one region on the slide."""

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self.layer: Points | None = None

    def show(self, region: ErrorRegion, spots: Spots, slide: ViewerSlide) -> None:
        """Ring the spots of a region (level-0 px) and move the camera there."""
        session, mpp = self._session, slide.mpp
        size = (spots.diameter_um or DEFAULT_DIAMETER_UM) * 1.15 / mpp
        points = swap_xy(spots.xy[list(region.spot_rows)])
        session.layers.remove(self.layer)
        self.layer = Points(
            points,
            name=OUTLINE_LAYER_NAME,
            size=size,
            scale=(mpp, mpp),
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            face_color="transparent",
            border_color="#ff8a65",
            border_width=0.12,
        )
        session.layers.insert(self.layer, slide)
        self._center_camera(region, mpp)

    def remove(self) -> None:
        """Remove the outline."""
        self._session.layers.remove(self.layer)
        self.layer = None

    def _center_camera(self, region: ErrorRegion, mpp: float) -> None:
        viewer = self._session.viewer
        viewer.scene.camera.center = (0, region.y * mpp, region.x * mpp)
        radius = max(region.radius * mpp, 1.0) / CANVAS_FILL
        viewer.scene.camera.zoom = min(viewer.canvas.size) / (2 * radius)
