"""The TIFF family: plain, tiled, pyramidal, OME-TIFF and Aperio SVS, through tifffile."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .cache import TileCache, choose_cache_capacity
from .chunks import assemble_region
from .flat import MAX_IMAGE_PX
from .source import SourceError, levels_from_sizes
from .tiff_level import TiffLevel
from .tiff_pixel_size import read_tiff_pixel_size

# Vendor layouts that OpenSlide knows and plain TIFF readers get wrong (overlaps, focal planes).
OPENSLIDE_TIFF_FLAGS = ("is_ndpi", "is_scn", "is_bif", "is_philips")

# Aperio's JPEG 2000 in YCbCr, which tifffile hands out without turning it into RGB.
APERIO_YCBCR = 33003

# tifffile logs what is wrong with a file; here it becomes a SlideError, told once.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def is_openslide_tiff(path: Path) -> bool:
    """Whether OpenSlide reads this TIFF better than tifffile."""
    with tifffile.TiffFile(path) as tif:
        if any(getattr(tif, flag, False) for flag in OPENSLIDE_TIFF_FLAGS):
            return True
        return bool(len(tif.pages)) and tif.pages.first.compression == APERIO_YCBCR


class TiffSource:
    """Reads tiles or strips from their place in the file; decoded ones are cached."""

    def __init__(self, path: Path) -> None:
        self._tif = tifffile.TiffFile(path)
        try:
            self._lock = Lock()
            self._levels = [TiffLevel(found, self._read_bytes) for found in find_level_series(self._tif)]
            size = path.stat().st_size
            if any(level.end_offset > size for level in self._levels):
                raise SourceError("the file is cut short; copy or export it again")
            wide, high = self._levels[0].chunk_size
            if wide * high > MAX_IMAGE_PX:
                raise SourceError(
                    f"it is stored as one block of {wide:,} x {high:,} px; "
                    "convert it to a tiled, pyramidal TIFF"
                )
            self.levels = levels_from_sizes([(level.width, level.height) for level in self._levels])
            self.chunk_size = self._levels[0].chunk_size
            self.icc_profile = self._levels[0].icc_profile
            self.pixel_size_metadata = read_tiff_pixel_size(self._tif, self.levels[0].width, self.levels[0].height)
        except BaseException:
            self._tif.close()
            raise
        self._cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        tiff_level = self._levels[level]
        return assemble_region(
            x, y, width, height, tiff_level.chunk_size,
            lambda column, row: self._cache.get(
                (level, column, row), lambda: tiff_level.read_tile(column, row)
            ),
        )  # fmt: skip

    def _read_bytes(self, page: Any, offset: int, count: int) -> bytes:
        # Seek and read go together; decoding happens outside the lock.
        with self._lock:
            file = page.parent.filehandle
            file.seek(offset)
            data = file.read(count)
        if len(data) != count:
            raise SourceError("the file is cut short; copy or export it again")
        return data

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._cache.clear()
        self._tif.close()


def find_level_series(tif: tifffile.TiffFile) -> list[Any]:
    """The series of tifffile that hold the slide at falling resolution, finest first.

    tifffile groups pyramids in SubIFDs and most flat ones. Where levels stand as separate
    images (flat OME pyramids), smaller images of the same shape, type and tiling are levels.
    """
    if not tif.series:
        raise SourceError("it holds no image; copy or export it again")
    main = max(tif.series, key=lambda series: series.size)
    levels = list(main.levels)
    if len(levels) == 1 and not tif.is_svs:
        others = [series for series in tif.series if series is not main]
        levels += [series for series in others if _is_level_of(series, main)]
        levels.sort(key=lambda series: -series.size)
    return levels


def _is_level_of(series: Any, main: Any) -> bool:
    page, first = series.keyframe, main.keyframe
    if (series.axes, series.dtype) != (main.axes, main.dtype) or len(series.shape) < 2:
        return False
    if page.is_tiled != first.is_tiled or page.imagewidth >= first.imagewidth:
        return False
    factor = first.imagewidth / page.imagewidth
    return abs(first.imagelength / factor - page.imagelength) <= 1
