"""Histology of results and figures: the overview image of a slide, and the pixels of an extent.

Extents are in um from the top left corner of the slide, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..slide import Slide


MAX_OVERVIEW_PX = 2_000  # of the longer side
MAX_HISTOLOGY_PX = 1700  # finer than print


@dataclass(frozen=True, eq=False)
class SlideOverview:
    """The whole slide at a low resolution.

    Attributes
    ----------
    rgb : ndarray
        (H, W, 3) uint8.
    scale : float
        Pixels of the overview per level-0 px, at most 1.
    """

    rgb: NDArray[np.uint8]
    scale: float

    @classmethod
    def from_slide(cls, slide: Slide) -> SlideOverview:
        """Read the coarsest level that is fine enough.

        Raises
        ------
        SlideError
            When the slide cannot be read.
        """
        from PIL import Image

        longest = max(slide.width, slide.height)
        level = max(
            (i for i, s in enumerate(slide.levels) if max(s.width, s.height) >= MAX_OVERVIEW_PX),
            default=0,
        )
        source = slide.levels[level]
        image = Image.fromarray(slide.read_region(0, 0, source.width, source.height, level))
        scale = min(1.0, MAX_OVERVIEW_PX / longest)
        size = max(round(slide.width * scale), 1), max(round(slide.height * scale), 1)
        return cls(np.asarray(image.resize(size, Image.Resampling.BOX)), scale)


if TYPE_CHECKING:
    HistologySource = Slide | SlideOverview


@dataclass(frozen=True)
class FigureExtent:
    """A rectangle in um."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Width in um."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in um."""
        return self.bottom - self.top


@dataclass(frozen=True, eq=False)
class HistologyImage:
    """Pixels (H, W, 3) uint8 of the slide and their extent."""

    pixels: NDArray[np.uint8]
    extent: FigureExtent


def get_histology_size(histology: HistologySource) -> tuple[float, float]:
    """Width and height in level-0 px."""
    if isinstance(histology, SlideOverview):
        height, width = histology.rgb.shape[:2]
        return width / histology.scale, height / histology.scale
    return histology.width, histology.height


def crop_histology(
    histology: HistologySource, extent: FigureExtent, mpp: float
) -> HistologyImage | None:
    """Read the histology of an extent (um), fine enough for print.

    Returns
    -------
    HistologyImage or None
        None where the extent is off the slide.

    Raises
    ------
    SlideError
        When the slide is damaged there.
    """
    from PIL import Image

    slide_width, slide_height = get_histology_size(histology)
    left, top = max(extent.left / mpp, 0), max(extent.top / mpp, 0)
    right, bottom = min(extent.right / mpp, slide_width), min(extent.bottom / mpp, slide_height)
    if right - left < 1 or bottom - top < 1:
        return None
    target_downsample = max(1.0, max(right - left, bottom - top) / MAX_HISTOLOGY_PX)
    bounds = (left, top, right, bottom)
    if isinstance(histology, SlideOverview):
        downsample = 1 / histology.scale
        x, y, width, height = _round_outward(bounds, downsample)
        pixels = histology.rgb[y : y + height, x : x + width]
    else:
        level = histology.best_level_for_downsample(target_downsample)
        downsample = histology.levels[level].downsample
        x, y, width, height = _round_outward(bounds, downsample)
        pixels = histology.read_region(x, y, width, height, level)
    height, width = pixels.shape[:2]
    corners = np.array([x, y, x + width, y + height]) * downsample * mpp
    size = (
        max(1, round(width * downsample / target_downsample)),
        max(1, round(height * downsample / target_downsample)),
    )
    if size[0] < width:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return HistologyImage(pixels, FigureExtent(*corners.tolist()))


def _round_outward(
    bounds: tuple[float, float, float, float], downsample: float
) -> tuple[int, int, int, int]:
    """x, y, width and height of the level's pixels that cover bounds in level-0 px."""
    left, top, right, bottom = (value / downsample for value in bounds)
    x, y = int(left), int(top)
    return x, y, max(1, int(np.ceil(right)) - x), max(1, int(np.ceil(bottom)) - y)
