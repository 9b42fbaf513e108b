"""The histology under a figure: of the slide, or of the small picture that a result carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .figure_parts import Box, Ground
from .picture import Picture

if TYPE_CHECKING:
    from ..slide import Slide

    Histology = Slide | Picture

LONGEST_PX = 1700  # more than what is printed


def size_of(histology: Histology) -> tuple[float, float]:
    """Width and height in level-0 px."""
    if isinstance(histology, Picture):
        height, width = histology.rgb.shape[:2]
        return width / histology.factor, height / histology.factor
    return histology.width, histology.height


def ground_of(histology: Histology, box: Box, mpp: float) -> Ground | None:
    """What lies in the box (um), fine enough for paper; None where the box is beside it.

    mpp : um per level-0 px. Raises SlideError when the slide is damaged there.
    """
    from PIL import Image

    wide, high = size_of(histology)
    left, top = max(box.left / mpp, 0), max(box.top / mpp, 0)
    right, bottom = min(box.right / mpp, wide), min(box.bottom / mpp, high)
    if right - left < 1 or bottom - top < 1:
        return None
    coarse = max(1.0, max(right - left, bottom - top) / LONGEST_PX)
    read = _of_picture if isinstance(histology, Picture) else _of_slide
    pixels, x, y, down = read(histology, (left, top, right, bottom), coarse)  # type: ignore[arg-type]
    height, width = pixels.shape[:2]
    corners = np.array([x, y, x + width, y + height]) * down * mpp
    size = max(1, round(width * down / coarse)), max(1, round(height * down / coarse))
    if size[0] < width:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return Ground(pixels, Box(*corners.tolist()))


# Pixels of a part (left, top, right, bottom in level-0 px), and where they lie: x and y of their
# corner in pixels of their own, each of which is so many level-0 px wide.
_Part = tuple[NDArray[np.uint8], int, int, float]
_Corners = tuple[float, float, float, float]


def _of_slide(slide: Slide, part: _Corners, coarse: float) -> _Part:
    level = slide.level_for(coarse)
    down = slide.levels[level].downsample
    x, y, width, height = _whole(part, down)
    return slide.read_region(x, y, width, height, level), x, y, down


def _of_picture(picture: Picture, part: _Corners, coarse: float) -> _Part:
    down = 1 / picture.factor
    x, y, width, height = _whole(part, down)
    return picture.rgb[y : y + height, x : x + width], x, y, down


def _whole(part: _Corners, down: float) -> tuple[int, int, int, int]:
    """The pixels that cover it: x, y, width, height."""
    left, top, right, bottom = (value / down for value in part)
    x, y = int(left), int(top)
    return x, y, max(1, int(np.ceil(right)) - x), max(1, int(np.ceil(bottom)) - y)
