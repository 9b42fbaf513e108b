"""Lower levels for a slide that brings too few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cache import TileCache
from .chunks import assemble
from .source import Level, Source

# A slide longer than this gets lower levels when its own end above COARSE_ENOUGH ...
FLAT_LIMIT = 4096
COARSE_ENOUGH = 2048
# ... down to this.
OVERVIEW = 1024

TILE = 512
BAND = 128

# To make a tile of a low level again costs a pass over much of level 0. So each level from this
# downsample on has a cache to itself, which holds all of a level up to 4,700 px square.
CHEAP_BELOW = 8
CACHE_BYTES = 64 * 2**20


def with_overview(source: Source) -> Source:
    """The source itself, or the source with lower levels where it needs them."""
    finest, coarsest = source.levels[0], source.levels[-1]
    if max(finest.width, finest.height) <= FLAT_LIMIT:
        return source
    if max(coarsest.width, coarsest.height) <= COARSE_ENOUGH:
        return source
    return Reduced(source)


class Reduced:
    """A source and, below its coarsest level, levels of 2 x 2 means made tile by tile on demand."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._own = len(source.levels)
        levels = list(source.levels)
        while max(levels[-1].width, levels[-1].height) > OVERVIEW:
            above = levels[-1]
            levels.append(
                Level((above.width + 1) // 2, (above.height + 1) // 2, above.downsample * 2)
            )
        self.levels = tuple(levels)
        self.measured = source.measured
        self.chunk = source.chunk
        self.icc = source.icc
        # One cache for the cheap levels, which reading passes through on its way down.
        cheap = TileCache(CACHE_BYTES)
        self._caches = [
            cheap if level.downsample < CHEAP_BELOW else TileCache(CACHE_BYTES)
            for level in self.levels
        ]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        if level < self._own:
            return self._source.read(level, x, y, width, height)
        cache, chunk = self._caches[level], self._chunk(level)
        return assemble(
            x, y, width, height, chunk,
            lambda column, row: cache.get(
                (level, column, row), lambda: self._reduce(level, column, row, chunk)
            ),
        )  # fmt: skip

    def _chunk(self, level: int) -> tuple[int, int]:
        # A slide stored in strips is walked in bands, so that no strip is decoded many times.
        if self.chunk[0] >= self.levels[0].width:
            return self.levels[level].width, BAND
        return TILE, TILE

    def _reduce(
        self, level: int, column: int, row: int, chunk: tuple[int, int]
    ) -> NDArray[np.uint8]:
        above = self.levels[level - 1]
        x, y = 2 * column * chunk[0], 2 * row * chunk[1]
        width, height = min(2 * chunk[0], above.width - x), min(2 * chunk[1], above.height - y)
        return halved(self.read(level - 1, x, y, width, height))

    def prefetch(self) -> None:
        self._source.prefetch()

    def close(self) -> None:
        for cache in self._caches:
            cache.clear()
        self._source.close()


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """2 x 2 means of (H, W, 3); an odd last row or column is averaged with itself."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(2))
