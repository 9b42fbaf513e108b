"""Read vendor formats with OpenSlide: NDPI, MRXS, SCN, BIF, VSI and others."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import openslide
from numpy.typing import NDArray

from ..color_conversion import convert_to_rgb8
from ..pixel_size import (
    PixelSizeMetadata,
    choose_pixel_size,
    pixel_size_from_objective,
    pixel_size_from_sides,
)
from .slide_source import TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity, group_small_chunks

# OpenSlide's own cache only has to last while one of our tiles is decoded.
OPENSLIDE_CACHE_BYTES = 32 * 2**20

# In some formats tiles are strips of 8 px; they are read together up to this many px.
MIN_READ_PX = 128


class OpenSlideSource(TiledSource):
    """Reads along the slide's tile grid; tiles are cached as RGB, which OpenSlide does not do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._slide = self._open()
        self.levels = levels_from_sizes(list(self._slide.level_dimensions))
        self._downsamples = self._slide.level_downsamples
        self.pixel_size_metadata = self._read_pixel_size()
        self.icc_profile = self._read_icc_profile()
        width, height = (
            int(self._slide.properties.get(f"openslide.level[0].tile-{side}", 256))
            for side in ("width", "height")
        )
        self.chunk_size = (
            group_small_chunks(width, MIN_READ_PX),
            group_small_chunks(height, MIN_READ_PX),
        )
        self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE_BYTES))
        return slide

    def _read_pixel_size(self) -> PixelSizeMetadata:
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "OpenSlide").capitalize()
        names = ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power")
        x, y, power = (float(value) if (value := properties.get(name)) else None for name in names)
        return choose_pixel_size(
            pixel_size_from_sides(x, y, f"{vendor} metadata"), pixel_size_from_objective(power)
        )

    def _read_icc_profile(self) -> bytes | None:
        from PIL.ImageCms import PyCMSError

        try:
            profile = self._slide.color_profile
        except (OSError, PyCMSError):
            return b"damaged"  # reported when the profile is used
        return None if profile is None else profile.tobytes()

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Decode one tile."""
        size, factor = self.levels[level], self._downsamples[level]
        x, y = column * self.chunk_size[0], row * self.chunk_size[1]
        pixels = min(self.chunk_size[0], size.width - x), min(self.chunk_size[1], size.height - y)
        slide = self._slide
        try:
            region = slide.read_region((round(x * factor), round(y * factor)), level, pixels)
        except openslide.OpenSlideError:
            # After one damaged tile OpenSlide refuses every read; other tiles may be intact.
            with self._lock:
                if self._slide is slide:
                    self._slide = self._open()
            raise
        if region.getchannel("A").getextrema()[0] == 255:
            return np.asarray(region.convert("RGB"))  # four times as fast
        return convert_to_rgb8(np.asarray(region))  # parts that were not scanned are transparent

    def close(self) -> None:
        """Release the cached tiles and close the slide."""
        super().close()
        self._slide.close()
