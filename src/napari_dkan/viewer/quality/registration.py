"""Landmarks: clicking the same places on a section's own image and on the slide, in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from ...errors import DkanError, SpotsError
from ...slide import PixelSize, Slide, open_slide
from ...spatial.coordinates import swap_xy
from ...spatial.landmarks import Affine, fit_landmarks
from ..overlay import robust_limits
from ..session import OpenSlide
from ..slides import AXES, UNITS, slide_layer_data
from .layers import PART
from .removing import remove_layers
from .section import LoadedSection

if TYPE_CHECKING:
    from .state import Quality

LEAST = 3
GAP = 0.06  # of the slide's width, between it and the section's own image
COLOURS = "#00e5ff", "#ffea00", "#76ff03", "#ff9100", "#e040fb", "#ffffff"


@dataclass(frozen=True)
class Mark:
    """A place clicked on both: (x, y) in the section's own px and in level-0 px of the slide."""

    own: tuple[float, float]
    slide: tuple[float, float]


class Landmarks:
    """The guided mode. The section's own image, or its spots where it has none, lies to the
    right of the slide meanwhile; nothing else is visible.

    pairs : finished ones. affine : what they say, None before three, or when they say nothing
    sensible; `problem` is then the reason. residual_um : how far they miss it, root mean square.
    """

    def __init__(self, quality: Quality, section: LoadedSection, slide: OpenSlide) -> None:
        self._quality, self.section, self.slide = quality, section, slide
        self.pairs: list[Mark] = []
        self._own: tuple[float, float] | None = None
        self._there: tuple[float, float] | None = None
        self.affine: Affine | None = None
        self.residual_um: float | None = None
        self.problem = ""
        viewer = quality.session.viewer
        self._viewer = viewer
        self._hidden = [m for m in viewer.layers if m.visible and m is not slide.layer]
        for layer in self._hidden:
            layer.visible = False
        slide.layer.visible = True
        width = slide.slide.width * slide.mpp
        self._left = width * (1 + GAP)  # of the own image, in the world
        self._source: Slide | None = None
        self._own_um, self._corner = self._scale_of_own()
        self._layers = self._shown()
        selected = set(viewer.layers.selection)
        for layer in self._layers:
            viewer.layers.append(layer)
        viewer.layers.selection = selected & set(viewer.layers)
        viewer.layers.selection.active = None
        viewer.reset_view()

    @property
    def source(self) -> str:
        """What is clicked on the right, for people."""
        return "the section's own image" if self._source is not None else "the section's spots"

    @property
    def instruction(self) -> str:
        """What to do now."""
        number = len(self.pairs) + 1
        if self._own is not None:
            return f"Point {number}: now click the same place on the slide (left)."
        if self._there is not None:
            return f"Point {number}: now click the same place on {self.source} (right)."
        if self.problem:
            return self.problem
        if self.affine is None:
            return (
                f"Point {number} of {LEAST}: click a place on {self.source} (right) that you "
                "would know again on the slide (left)."
            )
        if len(self.pairs) == LEAST:
            return (
                "The rings show where the spots come to lie. Three points always fit; click "
                "another place on both to see how well they do, or press Done."
            )
        return (
            f"{len(self.pairs)} points fit to within {self.residual_um:.0f} um. The rings show "
            "where the spots come to lie; press Done, or click another place on both."
        )

    @property
    def can_finish(self) -> bool:
        return self.affine is not None

    @property
    def can_undo(self) -> bool:
        return bool(self.pairs) or self._own is not None or self._there is not None

    def click(self, world: tuple[float, float]) -> None:
        """A click at (y, x) in the world: on the right for the section, on the left the slide.

        A second click on the same side corrects the first.
        """
        y, x = world
        if x >= self._left - GAP / 2 * self._left:
            own = (np.array([x, y]) - self._corner) / self._own_um
            self._own = float(own[0]), float(own[1])
        else:
            row, column = self.slide.layer.world_to_data((y, x))[-2:]
            self._there = float(column), float(row)
        if self._own is not None and self._there is not None:
            self.pairs.append(Mark(self._own, self._there))
            self._own = self._there = None
        self._fit()

    def undo(self) -> None:
        """Take back the last click."""
        if self._own is not None or self._there is not None:
            self._own = self._there = None
        elif self.pairs:
            self._own = self.pairs.pop().own
        self._fit()

    def close(self) -> None:
        """Everything looks as before."""
        remove_layers(self._viewer.layers, self._layers)
        for layer in self._hidden:
            layer.visible = True
        if self._source is not None:
            self._source.close()
        self._viewer.reset_view()

    # ---- inside -------------------------------------------------------------------------

    def _fit(self) -> None:
        self.affine, self.residual_um, self.problem = None, None, ""
        if len(self.pairs) >= LEAST:
            own, there = (np.array([getattr(p, k) for p in self.pairs]) for k in ("own", "slide"))
            try:
                self.affine = fit_landmarks(own, there)
                miss = np.hypot(*(self.affine.apply(own) - there).T)
                self.residual_um = float(np.sqrt((miss**2).mean())) * self.slide.mpp
            except SpotsError as error:
                self.problem = f"{error} Undo takes back the last point."
        self._draw()
        self._quality.landmarks_changed.emit()

    def _draw(self) -> None:
        """The clicked places with their numbers, and where the spots come to lie."""
        marks, preview = self._layers[-1], self._layers[-2]
        places, numbers = [], []
        waiting = [(self._own, None), (None, self._there)]
        both = [(p.own, p.slide) for p in self.pairs]
        for number, (own, there) in enumerate(both + [w for w in waiting if any(w)], 1):
            number = min(number, len(both) + 1)
            if own is not None:
                places.append(swap_xy(np.array(own) * self._own_um + self._corner))
                numbers.append(number)
            if there is not None:
                places.append(np.array(self.slide.layer.data_to_world(swap_xy(np.array(there)))))
                numbers.append(number)
        marks.data = np.array(places).reshape(-1, 2)
        marks.features = {"number": [str(n) for n in numbers]}
        if numbers:
            marks.border_color = [COLOURS[(n - 1) % len(COLOURS)] for n in numbers]
        xy = np.empty((0, 2))
        if self.affine is not None:
            xy = self.affine.apply(self.section.own_xy)
        preview.data = swap_xy(xy)

    def _scale_of_own(self) -> tuple[float, NDArray[np.float64]]:
        """World units per px of the own image, and its corner (x, y) in the world."""
        corner = np.array([self._left, 0.0])
        um = self.section.own_mpp
        image = self.section.own_image
        if image is not None:
            try:
                self._source = open_slide(image)
            except DkanError as error:
                self._quality.session.say(str(error), alarming=True)
        if self._source is not None:
            return um or self.slide.slide.height * self.slide.mpp / self._source.height, corner
        low, span = self.section.own_xy.min(axis=0), np.ptp(self.section.own_xy, axis=0)
        if um is None:
            um = 0.8 * self.slide.slide.height * self.slide.mpp / max(float(span.max()), 1.0)
        return um, corner - low * um

    def _shown(self) -> list[Layer]:
        """The own image and its spots, the preview, and the marks, from the bottom up."""
        made: list[Layer] = []
        um, corner = self._own_um, self._corner
        if self._source is not None:
            self._source.prefetch()
            pixels, options, _ = slide_layer_data(self._source, PixelSize(um, "entered by hand"))
            options |= {"name": f"{self.section.name}: own image", "metadata": {PART: "copy"}}
            made.append(Image(pixels, **options, translate=swap_xy(corner)))
        size = 0.5 * _pitch_px(self.section.own_xy)
        counts = np.log10(1 + np.asarray(self.section.data.X.sum(axis=1), np.float32).ravel())
        source = Points(
            swap_xy(self.section.own_xy),
            name=f"{self.section.name}: spots",
            size=size,
            scale=(um, um),
            translate=swap_xy(corner),
            features={"counts": counts},
            face_color="counts" if self._source is None else "transparent",
            face_colormap="magma",
            face_contrast_limits=robust_limits([counts]),
            border_color="#1f4e79",
            border_width=0.08,
            units=UNITS,
            axis_labels=AXES,
            metadata={PART: "landmarks"},
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
            units=UNITS,
            axis_labels=AXES,
            metadata={PART: "landmarks"},
        )
        marks = Points(
            np.empty((0, 2)),
            ndim=2,
            name="landmarks",
            symbol="cross",
            size=0.02 * self._left,
            face_color="transparent",
            border_width=0.12,
            features={"number": np.empty(0, str)},
            text={"string": "{number}", "size": 14, "color": "black", "anchor": "upper_left"},
            units=UNITS,
            axis_labels=AXES,
            metadata={PART: "landmarks"},
        )
        return [*made, source, preview, marks]


def _pitch_px(xy: NDArray[np.float64]) -> float:
    """About how far the spots are from each other."""
    from scipy.spatial import KDTree

    if len(xy) < 2:
        return 100.0
    distance, _ = KDTree(xy).query(xy, k=2)
    return max(float(np.median(distance[:, 1])), 1.0)
