"""The scan area on the glass: where it lies, and the two frames in which positions may count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openslide
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class ScanArea:
    """The scan area and the glass around it, in level-0 px of the image that is open.

    QuPath shows the scan area and counts from its corner; OpenSlide, and programs built on it
    such as TRIDENT and CLAM, count from the corner of the glass.

    Attributes
    ----------
    scan, glass
        (left, top, width, height). The one that is open begins at (0, 0).
    """

    scan: Box
    glass: Box

    @classmethod
    def of_image(cls, width: int, height: int) -> ScanArea:
        """Return the area of an image that is all there is."""
        return cls((0, 0, width, height), (0, 0, width, height))

    @classmethod
    def on_glass(cls, scan: Box, width: int, height: int, whole_glass: bool) -> ScanArea:
        """Return the area in the frame that is open.

        Parameters
        ----------
        scan
            In px of the glass.
        width, height
            Of the glass.
        whole_glass
            Whether the glass is open, and not the scan area.
        """
        if whole_glass:
            return cls(scan, (0, 0, width, height))
        left, top, *size = scan
        return cls((0, 0, size[0], size[1]), (-left, -top, width, height))

    def fits_from_glass(self, xy: NDArray[np.float64]) -> bool:
        """Whether positions count from the glass while the scan area is open.

        Parameters
        ----------
        xy
            (N, 2) px. They fit if all of them lie in the scan area once they are moved.
        """
        if self.scan[:2] != (0, 0) or self.scan == self.glass:
            return False
        moved = xy + self.glass[:2]
        return bool(len(xy)) and bool(((moved >= 0) & (moved < self.scan[2:])).all())


def read_scan_area(slide: openslide.OpenSlide) -> Box:
    """Return left, top, width and height of the scan area in level-0 px of the glass.

    It is that of ``openslide.bounds-*`` (SCN, MRXS and others), else the whole image.
    """
    full_width, full_height = slide.dimensions
    whole = (0, 0, full_width, full_height)
    try:
        left, top, width, height = (
            int(slide.properties[f"openslide.bounds-{name}"])
            for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return whole
    right, bottom = min(left + width, full_width), min(top + height, full_height)
    if left < 0 or top < 0 or right <= left or bottom <= top:
        return whole
    return left, top, right - left, bottom - top
