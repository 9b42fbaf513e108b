"""Detect tissue on a slide by texture and optical density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .overview import read_overview
from .slide import Slide

if TYPE_CHECKING:
    from shapely import MultiPolygon


# Tissue is textured: its optical density differs from a blur of 2 px by 0.03 (fat) to 0.1 and
# more (cells), root mean square over 5 x 5 px. Glass, smears and printed array spots: below 0.01.
MIN_ROUGHNESS = 0.025
BLUR_PX = 2
ROUGHNESS_WINDOW_PX = 5
# The texture extends this many px beyond the edge of the tissue.
EDGE_REACH_PX = 4
# Smooth tissue (dense collagen, mucus) counts where it adjoins rough tissue and absorbs more red
# or green light than the glass by this much; a pink smear stays below 0.06 and 0.18.
MIN_OPTICAL_DENSITY = (0.15, 0.28)
# Smallest rough fraction of a piece of tissue.
MIN_ROUGH_FRACTION = 0.3

# In px of the overview, about 8 um: gaps of fat and lumina up to these sizes are closed, tears
# stay open, and smaller pieces (dust, fibres) are removed.
CLOSING_RADIUS_PX = 3
MAX_HOLE_PX = 400
MAX_DEBRIS_PX = 300


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue on a slide.

    Attributes
    ----------
    mask
        (h, w) bool; pixel (row, column) covers a square of `downsample` level-0 px with its
        corner at (column, row) * downsample.
    downsample
        Level-0 px per px of the mask.
    """

    mask: NDArray[np.bool_]
    downsample: float

    def contains(self, xy: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether points (N, 2) in level-0 px (x, y) are on tissue, (N,) bool."""
        pixel = np.floor(np.asarray(xy, np.float64).reshape(-1, 2) / self.downsample)
        height, width = self.mask.shape
        inside = np.all((pixel >= 0) & (pixel < (width, height)), axis=1)
        column, row = np.where(inside[:, None], pixel, 0).astype(int).T
        on_tissue: NDArray[np.bool_] = inside & self.mask[row, column]
        return on_tissue

    def fraction(self, xy: NDArray[Any], side_px: float) -> NDArray[np.float64]:
        """Return the exact fraction of tissue in squares, (N,).

        The squares have a side of `side_px` level-0 px and are centred on points (N, 2) (x, y).
        Outside the slide is not tissue.
        """
        center = np.asarray(xy, np.float64).reshape(-1, 2)
        low, high = (center - side_px / 2).T, (center + side_px / 2).T
        area = (
            self._cumulative_area(high[0], high[1])
            - self._cumulative_area(low[0], high[1])
            - self._cumulative_area(high[0], low[1])
            + self._cumulative_area(low[0], low[1])
        )
        fraction: NDArray[np.float64] = np.clip(area * (self.downsample / side_px) ** 2, 0.0, 1.0)
        return fraction

    @cached_property
    def _integral_image(self) -> NDArray[np.float64]:
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        np.cumsum(np.cumsum(self.mask, axis=0), axis=1, out=sums[1:, 1:])
        return sums

    def _cumulative_area(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the tissue area above and left of points in mask px.

        Bilinear interpolation of the integral image, which is exact.
        """
        height, width = self.mask.shape
        x, y = np.clip(x / self.downsample, 0, width), np.clip(y / self.downsample, 0, height)
        left = np.minimum(x.astype(int), max(width - 1, 0))
        top = np.minimum(y.astype(int), max(height - 1, 0))
        dx, dy = x - left, y - top
        right, bottom = np.minimum(left + 1, width), np.minimum(top + 1, height)
        sums = self._integral_image
        upper = sums[top, left] * (1 - dx) + sums[top, right] * dx
        lower = sums[bottom, left] * (1 - dx) + sums[bottom, right] * dx
        area: NDArray[np.float64] = upper * (1 - dy) + lower * dy
        return area

    def polygons(self) -> MultiPolygon:
        """Return outlines in level-0 px (x, y) with their holes, smoothed by half a mask px."""
        import shapely
        from skimage.measure import find_contours

        padded = np.pad(self.mask, 1).astype(np.float32)
        # Contours run between pixel centres, which are half a pixel from the corners.
        rings = [
            shapely.LineString((ring[:, ::-1] - 0.5) * self.downsample)
            for ring in find_contours(padded, 0.5)
        ]
        area = shapely.build_area(shapely.MultiLineString(rings))
        area = shapely.make_valid(area.simplify(self.downsample / 2))
        parts = [part for part in shapely.get_parts(area) if part.geom_type == "Polygon"]
        return shapely.MultiPolygon(parts)


def find_tissue(slide: Slide, mpp: float | None) -> TissueMask:
    """Find tissue on an overview of the slide at about 8 um/px.

    Parameters
    ----------
    mpp
        um per level-0 px; None assumes a scan of usual resolution.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    overview, downsample = read_overview(slide, mpp)
    return TissueMask(segment_tissue(overview), downsample)


def segment_tissue(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Segment an overview (h, w, 3): (h, w) bool, rough tissue and dense tissue that adjoins it."""
    from scipy import ndimage
    from skimage.morphology import remove_small_objects

    gray = np.zeros(overview.shape[:2], np.float32)
    dense = np.zeros(overview.shape[:2], bool)
    optical = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    for channel in range(3):  # one at a time: at 3,000 px each takes 36 MB
        density = optical[overview[:, :, channel]]
        # A slight blur removes the noise of a camera or of JPEG, but not cells.
        density = ndimage.gaussian_filter(density, 0.8)
        gray += density
        if channel < len(MIN_OPTICAL_DENSITY):
            dense |= density > np.float64(np.percentile(density, 5)) + MIN_OPTICAL_DENSITY[channel]
    gray /= 3
    gray -= ndimage.gaussian_filter(gray, BLUR_PX)
    gray *= gray
    rough = ndimage.uniform_filter(gray, ROUGHNESS_WINDOW_PX) > MIN_ROUGHNESS**2
    del density, gray

    # Gaps are closed before the erosion, which would otherwise remove thin walls.
    eroded = ndimage.binary_erosion(close_gaps(rough), iterations=EDGE_REACH_PX, border_value=1)
    tissue_mask: NDArray[np.bool_] = ndimage.binary_opening(close_gaps(eroded | dense), _disk(1))
    tissue_mask = remove_small_objects(tissue_mask, max_size=MAX_DEBRIS_PX)
    pieces, count = ndimage.label(tissue_mask)
    if count == 0:
        return tissue_mask
    rough_fraction = np.bincount(pieces[rough], minlength=count + 1) / np.maximum(
        np.bincount(pieces.ravel(), minlength=count + 1), 1
    )
    rough_fraction[0] = 0  # the background
    is_tissue: NDArray[np.bool_] = (rough_fraction >= MIN_ROUGH_FRACTION)[pieces]
    return is_tissue


def close_gaps(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bridge narrow gaps of a mask and fill small holes."""
    from scipy import ndimage
    from skimage.morphology import remove_small_holes

    inner = slice(CLOSING_RADIUS_PX, -CLOSING_RADIUS_PX)
    bridged = ndimage.binary_closing(
        np.pad(mask, CLOSING_RADIUS_PX, mode="edge"), _disk(CLOSING_RADIUS_PX)
    )
    closed: NDArray[np.bool_] = remove_small_holes(
        np.asarray(bridged)[inner, inner], max_size=MAX_HOLE_PX
    )
    return closed


def _disk(radius: int) -> NDArray[np.bool_]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.bool_] = x * x + y * y <= radius * radius + radius
    return disk
