"""Register a section by landmarks clicked on its source image and on the slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ...errors import DkanError, SpotsError
from ...slide import PixelSize, Slide, open_slide
from ...spatial.coordinates import AffineTransform, fit_affine_to_landmarks, swap_xy
from ..layers.contrast_limits import percentile_limits
from ..panels.quality.data.loaded_section import LoadedSection
from ..panels.quality.maps.section_maps import RESULT_KEY
from ..session.layer_stack import remove_layers
from ..session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide, make_slide_layer

if TYPE_CHECKING:
    from ..panels.quality.quality_controller import QualityController


MIN_LANDMARKS = 3
IMAGE_GAP = 0.06  # of the slide's width, between it and the section's own image
LANDMARK_COLORS = "#00e5ff", "#ffea00", "#76ff03", "#ff9100", "#e040fb", "#ffffff"


@dataclass(frozen=True)
class LandmarkPair:
    """A place clicked on both: (x, y) in the section's own px and in level-0 px of the slide."""

    own: tuple[float, float]
    slide: tuple[float, float]


class LandmarkRegistration:
    """The guided mode. The section's own image, or its spots where it has none, lies to the
    right of the slide meanwhile; nothing else is visible.

    pairs : finished ones. affine : what they say, None before three, or when they say nothing
    sensible; `problem` is then the reason. residual_um : how far they miss it, root mean square.
    """

    def __init__(
        self, quality: QualityController, section: LoadedSection, slide: ViewerSlide
    ) -> None:
        self._quality, self.section, self.slide = quality, section, slide
        self.pairs: list[LandmarkPair] = []
        self._source_point: tuple[float, float] | None = None
        self._slide_point: tuple[float, float] | None = None
        self.affine: AffineTransform | None = None
        self.rms_error_um: float | None = None
        self.error_message = ""
        viewer = quality.session.viewer
        self._viewer = viewer
        self._hidden_layers = [m for m in viewer.layers if m.visible and m is not slide.layer]
        for layer in self._hidden_layers:
            layer.visible = False
        slide.layer.visible = True
        width = slide.slide.width * slide.mpp
        self._source_left = width * (1 + IMAGE_GAP)  # of the own image, in the world
        self._source_slide: Slide | None = None
        self._source_um_per_px, self._source_corner = self._source_geometry()
        self._layers = self._make_layers()
        selected = set(viewer.layers.selection)
        for layer in self._layers:
            viewer.layers.append(layer)
        viewer.layers.selection = selected & set(viewer.layers)
        viewer.layers.selection.active = None
        viewer.reset_view()

    @property
    def source_description(self) -> str:
        """What is clicked on the right, for people."""
        return (
            "the section's own image" if self._source_slide is not None else "the section's spots"
        )

    @property
    def instruction(self) -> str:
        """What to do now."""
        number = len(self.pairs) + 1
        if self._source_point is not None:
            return f"Point {number}: now click the same place on the slide (left)."
        if self._slide_point is not None:
            return f"Point {number}: now click the same place on {self.source_description} (right)."
        if self.error_message:
            return self.error_message
        if self.affine is None:
            return (
                f"Point {number} of {MIN_LANDMARKS}: click a place on {self.source_description} (right) that you "
                "would know again on the slide (left)."
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
        """A click at (y, x) in the world: on the right for the section, on the left the slide.

        A second click on the same side corrects the first.
        """
        y, x = world
        if x >= self._source_left - IMAGE_GAP / 2 * self._source_left:
            own = (np.array([x, y]) - self._source_corner) / self._source_um_per_px
            self._source_point = float(own[0]), float(own[1])
        else:
            row, column = self.slide.layer.world_to_data((y, x))[-2:]
            self._slide_point = float(column), float(row)
        if self._source_point is not None and self._slide_point is not None:
            self.pairs.append(LandmarkPair(self._source_point, self._slide_point))
            self._source_point = self._slide_point = None
        self._fit()

    def undo(self) -> None:
        """Take back the last click."""
        if self._source_point is not None or self._slide_point is not None:
            self._source_point = self._slide_point = None
        elif self.pairs:
            self._source_point = self.pairs.pop().own
        self._fit()

    def close(self) -> None:
        """Everything looks as before."""
        remove_layers(self._viewer.layers, self._layers)
        for layer in self._hidden_layers:
            layer.visible = True
        if self._source_slide is not None:
            self._source_slide.close()
        self._viewer.reset_view()

    # ---- inside -------------------------------------------------------------------------

    def _fit(self) -> None:
        self.affine, self.rms_error_um, self.error_message = None, None, ""
        if len(self.pairs) >= MIN_LANDMARKS:
            own, there = (np.array([getattr(p, k) for p in self.pairs]) for k in ("own", "slide"))
            try:
                self.affine = fit_affine_to_landmarks(own, there)
                miss = np.hypot(*(self.affine.apply(own) - there).T)
                self.rms_error_um = float(np.sqrt((miss**2).mean())) * self.slide.mpp
            except SpotsError as error:
                self.error_message = f"{error} Undo takes back the last point."
        self._draw()
        self._quality.landmarks_changed.emit()

    def _draw(self) -> None:
        """The clicked places with their numbers, and where the spots come to lie."""
        marks, preview = self._layers[-1], self._layers[-2]
        places, numbers = [], []
        waiting = [(self._source_point, None), (None, self._slide_point)]
        both = [(p.own, p.slide) for p in self.pairs]
        for number, (own, there) in enumerate(both + [w for w in waiting if any(w)], 1):
            number = min(number, len(both) + 1)
            if own is not None:
                places.append(swap_xy(np.array(own) * self._source_um_per_px + self._source_corner))
                numbers.append(number)
            if there is not None:
                places.append(np.array(self.slide.layer.data_to_world(swap_xy(np.array(there)))))
                numbers.append(number)
        marks.data = np.array(places).reshape(-1, 2)
        marks.features = {"number": [str(n) for n in numbers]}
        if numbers:
            marks.border_color = [LANDMARK_COLORS[(n - 1) % len(LANDMARK_COLORS)] for n in numbers]
        xy = np.empty((0, 2))
        if self.affine is not None:
            xy = self.affine.apply(self.section.source_xy)
        preview.data = swap_xy(xy)

    def _source_geometry(self) -> tuple[float, NDArray[np.float64]]:
        """World units per px of the own image, and its corner (x, y) in the world."""
        corner = np.array([self._source_left, 0.0])
        um = self.section.source_mpp
        image = self.section.source_image
        if image is not None:
            try:
                self._source_slide = open_slide(image)
            except DkanError as error:
                self._quality.session.message.show(str(error), warning=True)
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
        """The own image and its spots, the preview, and the marks, from the bottom up."""
        made: list[Layer] = []
        um, corner = self._source_um_per_px, self._source_corner
        if self._source_slide is not None:
            self._source_slide.prefetch()
            pixels, options, _ = make_slide_layer(
                self._source_slide, PixelSize(um, "entered by hand")
            )
            options |= {"name": f"{self.section.name}: own image", "metadata": {RESULT_KEY: "copy"}}
            made.append(Image(pixels, **options, translate=swap_xy(corner)))
        size = 0.5 * _median_spacing(self.section.source_xy)
        counts = np.log10(1 + np.asarray(self.section.data.X.sum(axis=1), np.float32).ravel())
        source = Points(
            swap_xy(self.section.source_xy),
            name=f"{self.section.name}: spots",
            size=size,
            scale=(um, um),
            translate=swap_xy(corner),
            features={"counts": counts},
            face_color="counts" if self._source_slide is None else "transparent",
            face_colormap="magma",
            face_contrast_limits=percentile_limits([counts]),
            border_color="#1f4e79",
            border_width=0.08,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={RESULT_KEY: "landmarks"},
        )
        preview = Points(
            np.empty((0, 2)),
            ndim=2,
            name="where the spots come to lie",
            size=size * um / self.slide.mpp,
            scale=(self.slide.mpp,) * 2,
            face_color="transparent",
            border_color="#00e5ff",
            border_width=0.12,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={RESULT_KEY: "landmarks"},
        )
        marks = Points(
            np.empty((0, 2)),
            ndim=2,
            name="landmarks",
            symbol="cross",
            size=0.02 * self._source_left,
            face_color="transparent",
            border_width=0.12,
            features={"number": np.empty(0, str)},
            text={"string": "{number}", "size": 14, "color": "black", "anchor": "upper_left"},
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={RESULT_KEY: "landmarks"},
        )
        return [*made, source, preview, marks]


def _median_spacing(xy: NDArray[np.float64]) -> float:
    """About how far the spots are from each other."""
    from scipy.spatial import KDTree

    if len(xy) < 2:
        return 100.0
    distance, _ = KDTree(xy).query(xy, k=2)
    return max(float(np.median(distance[:, 1])), 1.0)
