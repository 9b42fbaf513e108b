"""A small overview image of the slide, stored with a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..slide import Slide


MAX_OVERVIEW_PX = 2_000  # of the longer side


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
