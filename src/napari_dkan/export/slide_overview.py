"""A small overview image of the slide, stored with a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..slide import Slide


MAX_OVERVIEW_PX = 2_000  # longest side


@dataclass(frozen=True, eq=False)
class SlideOverview:
    """The whole slide, small.

    rgb : (H, W, 3) uint8. factor : px of it per level-0 px, at most 1.
    """

    rgb: NDArray[np.uint8]
    scale: float

    @classmethod
    def from_slide(cls, slide: Slide) -> SlideOverview:
        """Read from the coarsest level that is fine enough. Raises SlideError."""
        from PIL import Image

        longest = max(slide.width, slide.height)
        level = max(
            (i for i, s in enumerate(slide.levels) if max(s.width, s.height) >= MAX_OVERVIEW_PX),
            default=0,
        )
        source = slide.levels[level]
        image = Image.fromarray(slide.read_region(0, 0, source.width, source.height, level))
        factor = min(1.0, MAX_OVERVIEW_PX / longest)
        size = max(round(slide.width * factor), 1), max(round(slide.height * factor), 1)
        return cls(np.asarray(image.resize(size, Image.Resampling.BOX)), factor)
