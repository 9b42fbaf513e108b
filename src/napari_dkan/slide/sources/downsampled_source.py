"""Add coarse pyramid levels, computed on demand, to a source that has too few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .slide_source import MIN_PYRAMID_SIDE_PX, Level, SlideSource, TiledSource
from .tile_cache import TileCache

# A slide longer than MIN_PYRAMID_SIDE_PX whose coarsest level is longer than this gets levels ...
MAX_COARSEST_SIDE_PX = 2048
# ... down to this.
TARGET_COARSEST_SIDE_PX = 1024

TILE_SIDE_PX = 512
BAND_HEIGHT_PX = 128

# Recomputing a tile of a coarse level reads much of level 0. So each level from this downsample
# on has a cache of its own, which holds all of a level up to 4,700 px square.
SHARED_CACHE_MAX_DOWNSAMPLE = 8
CACHE_BYTES = 64 * 2**20


def add_coarse_levels(source: SlideSource) -> SlideSource:
    """Return the source itself, or with lower levels where it needs them."""
    finest, coarsest = source.levels[0], source.levels[-1]
    if max(finest.width, finest.height) <= MIN_PYRAMID_SIDE_PX:
        return source
    if max(coarsest.width, coarsest.height) <= MAX_COARSEST_SIDE_PX:
        return source
    return DownsampledSource(source)


class DownsampledSource(TiledSource):
    """A source and, below its coarsest level, levels of 2 x 2 means computed tile by tile."""

    def __init__(self, source: SlideSource) -> None:
        self.source = source
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
        self.contents, self.scan_area = source.contents, source.scan_area
        # The cheap levels share a cache: a coarse tile is computed by reading through them.
        self.cache = TileCache(CACHE_BYTES)
        self.caches = [
            self.cache if level.downsample < SHARED_CACHE_MAX_DOWNSAMPLE else TileCache(CACHE_BYTES)
            for level in self.levels
        ]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return pixels (height, width, 3) of a region inside the level."""
        if level < self._n_source_levels:
            return self.source.read(level, x, y, width, height)
        return super().read(level, x, y, width, height)

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return the tile size: bands for a slide stored in strips, so each is decoded once."""
        if self.chunk_size[0] >= self.levels[0].width:
            return self.levels[level].width, BAND_HEIGHT_PX
        return TILE_SIDE_PX, TILE_SIDE_PX

    def cache_of_level(self, level: int) -> TileCache:
        """Return the cache that holds the tiles of a level."""
        return self.caches[level]

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Compute one tile from the level above."""
        above = self.levels[level - 1]
        tile_width, tile_height = self.tile_size(level)
        x, y = 2 * column * tile_width, 2 * row * tile_height
        width, height = min(2 * tile_width, above.width - x), min(2 * tile_height, above.height - y)
        return downsample_by_two(self.read(level - 1, x, y, width, height))

    def prefetch(self) -> None:
        """Start decoding level 0 of the source."""
        self.source.prefetch()

    def close(self) -> None:
        """Release the cached tiles and close the source."""
        for cache in self.caches:
            cache.clear()
        self.source.close()


def downsample_by_two(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 2 x 2 means of (H, W, 3); an odd last row or column is averaged with itself."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(2))
