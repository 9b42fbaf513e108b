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
from .slide_source import levels_from_sizes
from .tile_cache import TileCache, assemble_region, choose_cache_capacity, group_small_chunks

# OpenSlide keeps what it decoded only until the tile of ours that needs it is done.
OPENSLIDE_CACHE_BYTES = 32 * 2**20

# Some formats call strips of 8 px tiles; together they are read up to this many px.
MIN_READ_PX = 128


class OpenSlideSource:
    """Reads along the slide's own tile grid; tiles are kept as RGB, which OpenSlide does not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._slide = self._open()
        self.levels = levels_from_sizes(list(self._slide.level_dimensions))
        self._downsamples = self._slide.level_downsamples
        self.pixel_size_metadata = self._read_pixel_size()
        self.icc_profile = self._read_icc_profile()
        tile = (
            int(self._slide.properties.get(f"openslide.level[0].tile-{side}", 256))
            for side in ("width", "height")
        )
        wide, high = (group_small_chunks(side, MIN_READ_PX) for side in tile)
        self.chunk_size = wide, high
        self._cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE_BYTES))
        return slide

    def _read_pixel_size(self) -> PixelSizeMetadata:
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "OpenSlide").capitalize()
        names = ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power")
        x, y, power = (float(said) if (said := properties.get(name)) else None for name in names)
        return choose_pixel_size(
            pixel_size_from_sides(x, y, f"{vendor} metadata"), pixel_size_from_objective(power)
        )

    def _read_icc_profile(self) -> bytes | None:
        from PIL.ImageCms import PyCMSError

        try:
            profile = self._slide.color_profile
        except (OSError, PyCMSError):
            return b"damaged"  # which is told to whoever asks for it
        return None if profile is None else profile.tobytes()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return assemble_region(
            x, y, width, height, self.chunk_size,
            lambda column, row: self._cache.get(
                (level, column, row), lambda: self._read_tile(level, column, row)
            ),
        )  # fmt: skip

    def _read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        size, factor = self.levels[level], self._downsamples[level]
        x, y = column * self.chunk_size[0], row * self.chunk_size[1]
        pixels = min(self.chunk_size[0], size.width - x), min(self.chunk_size[1], size.height - y)
        slide = self._slide
        try:
            region = slide.read_region((round(x * factor), round(y * factor)), level, pixels)
        except openslide.OpenSlideError:
            # After one damaged tile OpenSlide refuses everything; others may still be read.
            with self._lock:
                if self._slide is slide:
                    self._slide = self._open()
            raise
        if region.getchannel("A").getextrema()[0] == 255:
            return np.asarray(region.convert("RGB"))  # four times as fast
        return convert_to_rgb8(np.asarray(region))  # parts that were never scanned are transparent

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._cache.clear()
        self._slide.close()
