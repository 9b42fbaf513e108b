"""Vendor formats through OpenSlide: NDPI, MRXS, SCN, BIF, VSI and the like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from .colour import to_rgb8
from .pixel_size import Measured, measured
from .source import levels_of

# OpenSlide's own default of 32 MiB holds little more than one neighbourhood of tiles.
CACHE_BYTES = 128 * 2**20


class OpenSlideSource:
    """OpenSlide is thread-safe and caches decoded tiles itself."""

    def __init__(self, path: Path) -> None:
        self._slide = openslide.OpenSlide(str(path))
        self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        self.levels = levels_of(list(self._slide.level_dimensions))
        self.measured = self._measured()
        self.chunk = (
            int(self._slide.properties.get("openslide.level[0].tile-width", 256)),
            int(self._slide.properties.get("openslide.level[0].tile-height", 256)),
        )

    def _measured(self) -> Measured:
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "OpenSlide").capitalize()
        sides = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        x, y = (float(side) if side else None for side in sides)
        return measured(x, y, f"{vendor} metadata")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        factor = self._slide.level_downsamples[level]
        corner = (round(x * factor), round(y * factor))
        # Parts that were never scanned are transparent.
        return to_rgb8(np.asarray(self._slide.read_region(corner, level, (width, height))))

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._slide.close()
