"""Add coarse pyramid levels, computed on demand, to a source that has too few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .slide_source import Level, SlideSource
from .tile_cache import TileCache, assemble_region

# A slide longer than this gets lower levels when its own end above COARSE_ENOUGH ...
MIN_PYRAMID_SIDE_PX = 4096
MAX_COARSEST_SIDE_PX = 2048
# ... down to this.
TARGET_COARSEST_SIDE_PX = 1024

TILE_SIDE_PX = 512
BAND_HEIGHT_PX = 128

# To make a tile of a low level again costs a pass over much of level 0. So each level from this
# downsample on has a cache to itself, which holds all of a level up to 4,700 px square.
SHARED_CACHE_MAX_DOWNSAMPLE = 8
CACHE_BYTES = 64 * 2**20


def add_coarse_levels(source: SlideSource) -> SlideSource:
    """The source itself, or the source with lower levels where it needs them."""
    finest, coarsest = source.levels[0], source.levels[-1]
    if max(finest.width, finest.height) <= MIN_PYRAMID_SIDE_PX:
        return source
    if max(coarsest.width, coarsest.height) <= MAX_COARSEST_SIDE_PX:
        return source
    return DownsampledSource(source)


class DownsampledSource:
    """A source and, below its coarsest level, levels of 2 x 2 means made tile by tile on demand."""

    def __init__(self, source: SlideSource) -> None:
        self._source = source
        self._n_source_levels = len(source.levels)
        levels = list(source.levels)
        while max(levels[-1].width, levels[-1].height) > TARGET_COARSEST_SIDE_PX:
            above = levels[-1]
            levels.append(
                Level((above.width + 1) // 2, (above.height + 1) // 2, above.downsample * 2)
            )
        self.levels = tuple(levels)
        self.pixel_size_metadata = source.pixel_size_metadata
        self.chunk_size = source.chunk_size
        self.icc_profile = source.icc_profile
        # One cache for the cheap levels, which reading passes through on its way down.
        cheap = TileCache(CACHE_BYTES)
        self._caches = [
            cheap if level.downsample < SHARED_CACHE_MAX_DOWNSAMPLE else TileCache(CACHE_BYTES)
            for level in self.levels
        ]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        if level < self._n_source_levels:
            return self._source.read(level, x, y, width, height)
        cache, chunk = self._caches[level], self._chunk_size_at(level)
        return assemble_region(
            x, y, width, height, chunk,
            lambda column, row: cache.get(
                (level, column, row), lambda: self._compute_tile(level, column, row, chunk)
            ),
        )  # fmt: skip

    def _chunk_size_at(self, level: int) -> tuple[int, int]:
        # A slide stored in strips is walked in bands, so that no strip is decoded many times.
        if self.chunk_size[0] >= self.levels[0].width:
            return self.levels[level].width, BAND_HEIGHT_PX
        return TILE_SIDE_PX, TILE_SIDE_PX

    def _compute_tile(
        self, level: int, column: int, row: int, chunk_size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        above = self.levels[level - 1]
        x, y = 2 * column * chunk_size[0], 2 * row * chunk_size[1]
        width, height = (
            min(2 * chunk_size[0], above.width - x),
            min(2 * chunk_size[1], above.height - y),
        )
        return downsample_by_two(self.read(level - 1, x, y, width, height))

    def prefetch(self) -> None:
        self._source.prefetch()

    def close(self) -> None:
        for cache in self._caches:
            cache.clear()
        self._source.close()


def downsample_by_two(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """2 x 2 means of (H, W, 3); an odd last row or column is averaged with itself."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(2))
