"""Register a section by landmarks clicked on its source image and on the slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray
from psygnal import Signal

from ...errors import SpotsError
from ...inference.map_colors import DEFAULT_COLORMAP
from ...slide import PixelSize, Slide, open_slide
from ...spatial.coordinates import AffineTransform, fit_affine_to_landmarks, swap_xy
from ...spatial.spots import median_spot_distance
from ..layers.contrast_limits import percentile_limits
from ..layers.value_layers import make_spots_layer
from ..session.slide_arrangement import fit_slide, slide_bounds
from ..session.slide_layer import (
    AXIS_LABELS,
    METADATA_PREFIX,
    MICROMETER_UNITS,
    ViewerSlide,
    make_slide_layer,
)
from ..session.viewer_session import ViewerSession

MIN_LANDMARKS = 3
IMAGE_GAP = 0.06  # between the slide and the section's own image, relative to the slide's width
LANDMARK_COLORS = "#00e5ff", "#ffea00", "#76ff03", "#ff9100", "#e040fb", "#ffffff"


class LandmarkSource(Protocol):
    """The section that is registered; `LoadedSection` describes the attributes."""

    name: str
    source_xy: NDArray[np.float64]
    source_image: Path | None
    source_mpp: float | None

    def total_counts_log10(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class LandmarkPair:
    """One place as (x, y) in px of the section's own image and in level-0 px of the slide."""

    source_xy: tuple[float, float]
    slide_xy: tuple[float, float]


class LandmarkRegistration:
    """Guided registration by pairs of clicks.

    The section's own image, or its spots where it has none, is shown to the right of the slide;
    all other layers are hidden until `close`.

    Attributes
    ----------
    section : LandmarkSource
    slide : ViewerSlide
    pairs : list of LandmarkPair
        Finished pairs.
    affine : AffineTransform or None
        From the section's own px to the slide; None before three pairs and when they have no
        solution, for which `error_message` is the reason.
    rms_error_um : float or None
        Root mean square distance of the pairs from `affine`.
    """

    changed = Signal()  # another click, or one was undone

    def __init__(self, session: ViewerSession, section: LandmarkSource, slide: ViewerSlide) -> None:
        self._session, self.section, self.slide = session, section, slide
        self.pairs: list[LandmarkPair] = []
        self._source_point: tuple[float, float] | None = None
        self._slide_point: tuple[float, float] | None = None
        self.affine: AffineTransform | None = None
        self.rms_error_um: float | None = None
        self.error_message = ""
        viewer = self._viewer = session.viewer
        self._hidden_layers = [m for m in viewer.layers if m.visible and m is not slide.layer]
        for layer in self._hidden_layers:
            layer.visible = False
        slide.layer.visible = True
        left, right = slide_bounds(slide)[:, 0]
        # The own image is shown to the right of the slide; clicks right of the border are on it.
        self._source_left = float(right + IMAGE_GAP * (right - left))
        self._border = float(right + IMAGE_GAP / 2 * (right - left))
        self._source_slide: Slide | None = None
        self._source_um_per_px, self._source_corner = self._source_geometry()
        self._layers = self._make_layers()
        for layer in self._layers:
            session.layers.insert(layer)
        session.layers.attach(slide, self._layers[-2])  # the preview
        viewer.layers.selection.active = None
        viewer.reset_view()

    @property
    def source_description(self) -> str:
        """What is clicked on the right, for the user."""
        return (
            "the section's own image" if self._source_slide is not None else "the section's spots"
        )

    @property
    def instruction(self) -> str:
        """What to do next."""
        number = len(self.pairs) + 1
        if self._source_point is not None:
            return f"Point {number}: now click the same place on the slide (left)."
        if self._slide_point is not None:
            return f"Point {number}: now click the same place on {self.source_description} (right)."
        if self.error_message:
            return self.error_message
        if self.affine is None:
            return (
                f"Point {number} of {MIN_LANDMARKS}: click a place on {self.source_description} "
                "(right) that you would know again on the slide (left)."
            )
        if len(self.pairs) == MIN_LANDMARKS:
            return (
                "The rings show where the spots come to lie. Three points always fit; click "
                "another place on both to see how well they do, or press Done."
            )
        return (
            f"{len(self.pairs)} points fit to within {self.rms_error_um:.0f} um. The rings show "
            "where the spots come to lie; press Done, or click another place on both."
        )

    @property
    def can_finish(self) -> bool:
        return self.affine is not None

    @property
    def can_undo(self) -> bool:
        return bool(self.pairs) or self._source_point is not None or self._slide_point is not None

    def click(self, world: tuple[float, float]) -> None:
        """Take a click at (y, x) in the world, right for the section or left for the slide.

        A second click on the same side replaces the first.
        """
        y, x = world
        if x >= self._border:
            source_xy = (np.array([x, y]) - self._source_corner) / self._source_um_per_px
            self._source_point = float(source_xy[0]), float(source_xy[1])
        else:
            row, column = self.slide.layer.world_to_data((y, x))[-2:]
            self._slide_point = float(column), float(row)
        if self._source_point is not None and self._slide_point is not None:
            self.pairs.append(LandmarkPair(self._source_point, self._slide_point))
            self._source_point = self._slide_point = None
        self._fit()

    def undo(self) -> None:
        """Undo the last click."""
        if self._source_point is not None or self._slide_point is not None:
            self._source_point = self._slide_point = None
        elif self.pairs:
            self._source_point = self.pairs.pop().source_xy
        self._fit()

    def close(self) -> None:
        """Remove the layers and show the hidden ones again."""
        self._session.layers.remove(*self._layers)
        for layer in self._hidden_layers:
            layer.visible = True
        if self._source_slide is not None:
            self._source_slide.close()
        if self.slide.layer in self._viewer.layers:
            fit_slide(self._viewer, self.slide)
        else:
            self._viewer.reset_view()

    def source_to_world(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert (x, y) in px of the section's own image to (y, x) in the world."""
        return swap_xy(xy * self._source_um_per_px + self._source_corner)

    def _fit(self) -> None:
        self.affine, self.rms_error_um, self.error_message = None, None, ""
        if len(self.pairs) >= MIN_LANDMARKS:
            source_xy = np.array([p.source_xy for p in self.pairs])
            slide_xy = np.array([p.slide_xy for p in self.pairs])
            try:
                self.affine = fit_affine_to_landmarks(source_xy, slide_xy)
                distance = np.hypot(*(self.affine.apply(source_xy) - slide_xy).T)
                self.rms_error_um = float(np.sqrt((distance**2).mean())) * self.slide.mpp
            except SpotsError as error:
                self.error_message = f"{error} Undo takes back the last point."
        self._draw()
        self.changed.emit()

    def _draw(self) -> None:
        """Draw the clicked places with their numbers, and the registered spots."""
        marks, preview = self._layers[-1], self._layers[-2]
        positions, numbers = [], []
        points: list[tuple[tuple[float, float] | None, tuple[float, float] | None]]
        points = [(p.source_xy, p.slide_xy) for p in self.pairs]
        if self._source_point is not None or self._slide_point is not None:
            points.append((self._source_point, self._slide_point))
        for number, (source_xy, slide_xy) in enumerate(points, 1):
            if source_xy is not None:
                positions.append(self.source_to_world(np.array(source_xy)))
                numbers.append(number)
            if slide_xy is not None:
                world = self.slide.layer.data_to_world(swap_xy(np.array(slide_xy)))
                positions.append(np.array(world))
                numbers.append(number)
        marks.data = np.array(positions).reshape(-1, 2)
        marks.features = {"number": [str(n) for n in numbers]}
        if numbers:
            marks.border_color = [LANDMARK_COLORS[(n - 1) % len(LANDMARK_COLORS)] for n in numbers]
        xy = np.empty((0, 2))
        if self.affine is not None:
            xy = self.affine.apply(self.section.source_xy)
        preview.data = swap_xy(xy)

    def _source_geometry(self) -> tuple[float, NDArray[np.float64]]:
        """World units per px of the own image, and the position (x, y) of its corner."""
        corner = np.array([self._source_left, 0.0])
        um = self.section.source_mpp
        image = self.section.source_image
        if image is not None:
            with self._session.message.report_errors():
                self._source_slide = open_slide(image)
        if self._source_slide is not None:
            return (
                um or self.slide.slide.height * self.slide.mpp / self._source_slide.height,
                corner,
            )
        low, span = self.section.source_xy.min(axis=0), np.ptp(self.section.source_xy, axis=0)
        if um is None:
            um = 0.8 * self.slide.slide.height * self.slide.mpp / max(float(span.max()), 1.0)
        return um, corner - low * um

    def _make_layers(self) -> list[Layer]:
        """The own image and its spots, the preview and the marks, from the bottom up."""
        layers: list[Layer] = []
        um, corner = self._source_um_per_px, self._source_corner
        if self._source_slide is not None:
            self._source_slide.prefetch()
            pixels, options, _ = make_slide_layer(
                self._source_slide, PixelSize(um, "entered by hand")
            )
            options |= {
                "name": f"{self.section.name}: own image",
                "metadata": {METADATA_PREFIX: "copy"},
            }
            layers.append(Image(pixels, **options, translate=swap_xy(corner)))
        size = 0.5 * _median_spacing(self.section.source_xy)
        counts = self.section.total_counts_log10()
        source = Points(
            swap_xy(self.section.source_xy),
            name=f"{self.section.name}: spots",
            size=size,
            scale=(um, um),
            translate=swap_xy(corner),
            features={"counts": counts},
            face_color="counts" if self._source_slide is None else "transparent",
            face_colormap=DEFAULT_COLORMAP,
            face_contrast_limits=percentile_limits([counts]),
            border_color="#1f4e79",
            border_width=0.08,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={METADATA_PREFIX: "landmarks"},
        )
        preview = make_spots_layer(
            np.empty((0, 2)),
            self.slide.mpp,
            "where the spots come to lie",
            size * um,
            face_color="transparent",
            border_color="#00e5ff",
            border_width=0.12,
            metadata={METADATA_PREFIX: "landmarks"},
        )
        marks = Points(
            np.empty((0, 2)),
            ndim=2,
            name="landmarks",
            symbol="cross",
            size=0.02 * self.slide.slide.width * self.slide.mpp,
            face_color="transparent",
            border_width=0.12,
            features={"number": np.empty(0, str)},
            text={"string": "{number}", "size": 14, "color": "black", "anchor": "upper_left"},
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={METADATA_PREFIX: "landmarks"},
        )
        return [*layers, source, preview, marks]


def _median_spacing(xy: NDArray[np.float64]) -> float:
    """Median distance of a spot to its nearest neighbour."""
    return max(median_spot_distance(xy), 1.0) if len(xy) > 1 else 100.0
