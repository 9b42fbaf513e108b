"""The histology under a figure: of the slide, or of the small picture that a result carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .figure_parts import FigureExtent, HistologyImage
from .picture import SlideOverview

if TYPE_CHECKING:
    from ..slide import Slide

    HistologySource = Slide | SlideOverview

MAX_HISTOLOGY_PX = 1700  # more than what is printed


def get_histology_size(histology: HistologySource) -> tuple[float, float]:
    """Width and height in level-0 px."""
    if isinstance(histology, SlideOverview):
        height, width = histology.rgb.shape[:2]
        return width / histology.scale, height / histology.scale
    return histology.width, histology.height


def crop_histology(histology: HistologySource, extent: FigureExtent, mpp: float) -> HistologyImage | None:
    """What lies in the box (um), fine enough for paper; None where the box is beside it.

    mpp : um per level-0 px. Raises SlideError when the slide is damaged there.
    """
    from PIL import Image

    wide, high = get_histology_size(histology)
    left, top = max(extent.left / mpp, 0), max(extent.top / mpp, 0)
    right, bottom = min(extent.right / mpp, wide), min(extent.bottom / mpp, high)
    if right - left < 1 or bottom - top < 1:
        return None
    coarse = max(1.0, max(right - left, bottom - top) / MAX_HISTOLOGY_PX)
    read = _crop_overview if isinstance(histology, SlideOverview) else _crop_slide
    pixels, x, y, down = read(histology, (left, top, right, bottom), coarse)  # type: ignore[arg-type]
    height, width = pixels.shape[:2]
    corners = np.array([x, y, x + width, y + height]) * down * mpp
    size = max(1, round(width * down / coarse)), max(1, round(height * down / coarse))
    if size[0] < width:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return HistologyImage(pixels, FigureExtent(*corners.tolist()))


# Pixels of a part (left, top, right, bottom in level-0 px), and where they lie: x and y of their
# corner in pixels of their own, each of which is so many level-0 px wide.
_PixelCrop = tuple[NDArray[np.uint8], int, int, float]
_CropCorners = tuple[float, float, float, float]


def _crop_slide(slide: Slide, corners: _CropCorners, coarse: float) -> _PixelCrop:
    level = slide.best_level_for_downsample(coarse)
    down = slide.levels[level].downsample
    x, y, width, height = _round_outward(corners, down)
    return slide.read_region(x, y, width, height, level), x, y, down


def _crop_overview(overview: SlideOverview, corners: _CropCorners, coarse: float) -> _PixelCrop:
    down = 1 / overview.scale
    x, y, width, height = _round_outward(corners, down)
    return overview.rgb[y : y + height, x : x + width], x, y, down


def _round_outward(corners: _CropCorners, down: float) -> tuple[int, int, int, int]:
    """The pixels that cover it: x, y, width, height."""
    left, top, right, bottom = (value / down for value in corners)
    x, y = int(left), int(top)
    return x, y, max(1, int(np.ceil(right)) - x), max(1, int(np.ceil(bottom)) - y)
