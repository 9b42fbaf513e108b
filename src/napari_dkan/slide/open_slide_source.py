"""Vendor formats through OpenSlide: NDPI, MRXS, SCN, BIF, VSI and the like."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import openslide
from numpy.typing import NDArray

from .cache import TileCache, bytes_for
from .chunks import assemble, together
from .colour import to_rgb8
from .pixel_size import Measured, first_known, from_objective, measured
from .source import levels_of

# OpenSlide keeps what it decoded only until the tile of ours that needs it is done.
OWN_CACHE_BYTES = 32 * 2**20

# Some formats call strips of 8 px tiles; together they are read up to this many px.
SMALL_TILE = 128


class OpenSlideSource:
    """Reads along the slide's own tile grid; tiles are kept as RGB, which OpenSlide does not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._slide = self._open()
        self.levels = levels_of(list(self._slide.level_dimensions))
        self._factors = self._slide.level_downsamples
        self.measured = self._measured()
        self.icc = self._profile()
        tile = (
            int(self._slide.properties.get(f"openslide.level[0].tile-{side}", 256))
            for side in ("width", "height")
        )
        wide, high = (together(side, SMALL_TILE) for side in tile)
        self.chunk = wide, high
        self._cache = TileCache(bytes_for(self.levels[0].width, self.chunk[1]))

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OWN_CACHE_BYTES))
        return slide

    def _measured(self) -> Measured:
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "OpenSlide").capitalize()
        names = ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power")
        x, y, power = (float(said) if (said := properties.get(name)) else None for name in names)
        return first_known(measured(x, y, f"{vendor} metadata"), from_objective(power))

    def _profile(self) -> bytes | None:
        from PIL.ImageCms import PyCMSError

        try:
            profile = self._slide.color_profile
        except (OSError, PyCMSError):
            return b"damaged"  # which is told to whoever asks for it
        return None if profile is None else profile.tobytes()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return assemble(
            x, y, width, height, self.chunk,
            lambda column, row: self._cache.get(
                (level, column, row), lambda: self._tile(level, column, row)
            ),
        )  # fmt: skip

    def _tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        size, factor = self.levels[level], self._factors[level]
        x, y = column * self.chunk[0], row * self.chunk[1]
        pixels = min(self.chunk[0], size.width - x), min(self.chunk[1], size.height - y)
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
        return to_rgb8(np.asarray(region))  # parts that were never scanned are transparent

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._cache.clear()
        self._slide.close()
