"""A ring around every spot of a region, and the camera over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Points

from ...spatial.coordinates import swap_xy
from ..session import OpenSlide, Session
from ..slides import AXES, UNITS

if TYPE_CHECKING:
    from ...quality.regions import Region
    from ...spatial.spots import Spots

NAME = "worst region"
FILLED = 0.3  # of the canvas, by the region


class Outline:
    """Points a region out on the slide; one at a time, in one layer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.layer: Points | None = None

    def show(self, region: Region, spots: Spots, slide: OpenSlide) -> None:
        """Ring the spots of a region (level-0 px) and move the camera there."""
        session, mpp = self._session, slide.mpp
        layers = session.viewer.layers
        size = (spots.diameter_um or 100.0) * 1.15 / mpp
        points = swap_xy(spots.xy[list(region.rows)])
        if self.layer in layers:
            layers.remove(self.layer)
        selected = set(layers.selection)
        self.layer = Points(
            points,
            name=NAME,
            size=size,
            scale=(mpp, mpp),
            units=UNITS,
            axis_labels=AXES,
            face_color="transparent",
            border_color="#ff8a65",
            border_width=0.12,
        )
        session.put_on(slide, self.layer)
        layers.append(self.layer)
        layers.selection = selected
        self._look_at(region, mpp)

    def remove(self) -> None:
        """Take the rings away; they belong to a comparison that is gone."""
        layers = self._session.viewer.layers
        if self.layer in layers:
            layers.remove(self.layer)
        self.layer = None

    def _look_at(self, region: Region, mpp: float) -> None:
        viewer = self._session.viewer
        viewer.scene.camera.center = (0, region.y * mpp, region.x * mpp)
        reach = max(region.radius * mpp, 1.0) / FILLED
        viewer.scene.camera.zoom = min(viewer.canvas.size) / (2 * reach)
