"""A ring around every spot of a region, and the camera over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Points

from ...spatial.coordinates import swap_xy
from ..session import ViewerSlide, ViewerSession
from ..slides import AXIS_LABELS, MICROMETER_UNITS

if TYPE_CHECKING:
    from ...quality.regions import ErrorRegion
    from ...spatial.spots import Spots

OUTLINE_LAYER_NAME = "worst region"
CANVAS_FILL = 0.3  # of the canvas, by the region


class RegionOutline:
    """Points a region out on the slide; one at a time, in one layer."""

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self.layer: Points | None = None

    def show(self, region: ErrorRegion, spots: Spots, slide: ViewerSlide) -> None:
        """Ring the spots of a region (level-0 px) and move the camera there."""
        session, mpp = self._session, slide.mpp
        layers = session.viewer.layers
        size = (spots.diameter_um or 100.0) * 1.15 / mpp
        points = swap_xy(spots.xy[list(region.spot_rows)])
        if self.layer in layers:
            layers.remove(self.layer)
        selected = set(layers.selection)
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
        session.attach_layer(slide, self.layer)
        layers.append(self.layer)
        layers.selection = selected
        self._center_camera(region, mpp)

    def remove(self) -> None:
        """Take the rings away; they belong to a comparison that is gone."""
        layers = self._session.viewer.layers
        if self.layer in layers:
            layers.remove(self.layer)
        self.layer = None

    def _center_camera(self, region: ErrorRegion, mpp: float) -> None:
        viewer = self._session.viewer
        viewer.scene.camera.center = (0, region.y * mpp, region.x * mpp)
        reach = max(region.radius * mpp, 1.0) / CANVAS_FILL
        viewer.scene.camera.zoom = min(viewer.canvas.size) / (2 * reach)
